/** What the two ends of a network device tell each other in xenstore: public/io/netif.h. Of the nodes only; who writes and watches them is xenbus. */

/** More queues than a guest has vCPUs serve nothing. */
export const NET_QUEUES_MAX = 8;

/** What our back end writes into its folder before it says InitWait: node name to value. The control ring and multicast filters are left out. */
export const BACK_NODES: Readonly<Record<string, string>> = {
  "feature-sg": "1", "feature-gso-tcpv4": "1", "feature-gso-tcpv6": "1", "feature-ipv6-csum-offload": "1",
  "feature-rx-copy": "1", "feature-rx-flip": "0", "feature-split-event-channels": "1", "multi-queue-max-queues": String(NET_QUEUES_MAX),
};

/** What the front end can do. */
export type FrontFeatures = {
  /** a frame may take several receive slots */
  readonly sg: boolean;
  /** it takes large TCP frames */
  readonly gsoTcpv4: boolean;
  readonly gsoTcpv6: boolean;
  /** it takes no blank checksums over IPv4; over IPv6 it takes them only when it says so */
  readonly noCsumOffload: boolean;
  readonly ipv6CsumOffload: boolean;
  /** it sends events for receive requests when req_event asks for them */
  readonly rxNotify: boolean;
  /** it has its receive buffers copied into; the other way, swapping pages, is served no more */
  readonly requestRxCopy: boolean;
};

/** @param read gives the text of a node in the front end's folder, undefined where there is none. Anything but a number other than 0 is "no". */
export function frontFeatures(read: (node: string) => string | undefined): FrontFeatures {
  const says = (node: string): boolean => /^[+-]?0*[1-9][0-9]*$/.test((read(node) ?? "").trim());
  return {
    sg: says("feature-sg"), gsoTcpv4: says("feature-gso-tcpv4"), gsoTcpv6: says("feature-gso-tcpv6"), noCsumOffload: says("feature-no-csum-offload"),
    ipv6CsumOffload: says("feature-ipv6-csum-offload"), rxNotify: says("feature-rx-notify"), requestRxCopy: says("request-rx-copy"),
  };
}
