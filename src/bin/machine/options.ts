/** Options of a machine, which domusd takes, keeps and hands on to the machine's process. */
import { IPV6_CHOICES } from "../../network/nat/ipv6-choice.ts";
import { DOMID_POLICIES } from "../../toolstack/domids.ts";
import { ENGINES } from "../../toolstack/pcpu-messages.ts";
import type { Option } from "../args.ts";

/** The options, by name. */
export const MACHINE_OPTIONS: Readonly<Record<string, Option>> = {
  memory: { value: "MIB", help: "the guests' memory, all together (default: three quarters of this computer's, 3072 at most)" },
  pcpus: { value: "N", help: "physical CPUs, a thread each (default: this computer's)" },
  engine: { value: "NAME", help: `${ENGINES.join(", ")}: how guest code is executed` },
  "domid-policy": { value: "NAME", help: `${DOMID_POLICIES.join(" or ")}: numbers of domains are the next free ones (default), or such as hardly another host's domain has: guests then move to other hosts without suspending themselves` },
  net: { value: "KIND", help: "the way out of the guests' bridges: nat (default), none, or tap:NAME[,bridge=BRIDGE]" },
  "host-access": { help: "guests reach this computer's 127.0.0.1 as 10.0.2.2 and its ::1 as fd64:6f6d:7573:2::2" },
  link: { value: "SPEC", help: "join a bridge with another machine's, or with pages in browsers, as with domus run: listen:ws:127.0.0.1:9001; the bridge is there at once, without a domain" },
  "net-rules": { value: "RULES", help: "what guests may reach by the router, as with domus run" },
  ipv6: { value: "KIND", help: `IPv6 in the guests' networks: ${IPV6_CHOICES.join(", ")}, as with domus run` },
};
