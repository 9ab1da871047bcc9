/** The names of a network: the router's own, and those that guests told DHCP, with the addresses that their stations have. */
import { parseIpv4 } from "../address.ts";
import { type Address, contains, isLinkLocal } from "./address.ts";
import type { Lan } from "./lan.ts";
import type { Leases } from "./leases.ts";
import { type Own, isGateway } from "./own.ts";

/** IPv6 addresses told of a guest, at most: those it used last, and not so long ago that it may have them no more. */
const ADDRESSES_MAX = 4, USED_MS = 24 * 3600_000;

/** What the DNS server asks. */
export interface Names {
  /** @param name lower case, without a dot at the end @returns its addresses; null: the name is ours and nobody has it; undefined: not ours */
  addressesOf(name: string): readonly Address[] | null | undefined;
  /** @returns the name; null: the address is ours and has none; undefined: not ours */
  nameOf(address: Address): string | null | undefined;
}

/** What is known of a network. */
export type NamesOptions = { readonly own: Own; readonly domain: string; readonly leases: Leases; readonly lan: Lan };

/** The names as they are at the moment they are asked for. */
export function namesOf({ own, domain, leases, lan }: NamesOptions): Names {
  const { v6 } = own, fixed = new Map<string, readonly Address[]>();
  for (const d of [domain, "domus.internal"]) {
    // The host's ::1 has a name of its own: most servers there listen on 127.0.0.1 alone, and many a client tries one address, an IPv6 one where there is any.
    fixed.set(`gateway.${d}`, v6 ? [own.gateway, v6.gateway] : [own.gateway]).set(`host.${d}`, [own.host]);
    if (v6) fixed.set(`host6.${d}`, [v6.host]);
  }
  const guest = (hostname: string): readonly Address[] | null => {
    const address = leases.addressOfName(hostname);
    if (address === null) return null;
    const mac = leases.holderOf(address) ?? lan.macOf(address), more = mac === undefined ? [] : lan.addressesOf(mac).filter((a) => typeof a === "bigint" && !isLinkLocal(a) && lan.macOf(a, USED_MS) === mac);
    return [address, ...more.slice(0, ADDRESSES_MAX)];
  };
  const labelOf = (address: Address): string | null => {
    if (isGateway(own, address)) return "gateway";
    if (address === own.host) return "host";
    if (address === v6?.host) return "host6";
    if (typeof address === "number") return leases.nameOf(address);
    const mac = lan.macOf(address), leased = mac === undefined ? null : leases.addressOf(mac);
    return leased === null ? null : leases.nameOf(leased);
  };
  return {
    addressesOf: (name) => {
      const known = fixed.get(name);
      if (known !== undefined) return known;
      if (name.endsWith(`.${domain}`)) return guest(name.slice(0, -domain.length - 1));
      return name === "" || name.includes(".") ? undefined : guest(name) ?? undefined;
    },
    nameOf: (address) => {
      if (!contains(own.network, address) && !(v6 && contains(v6.network, address))) return undefined;
      const label = labelOf(address);
      return label === null ? null : `${label}.${domain}`;
    },
  };
}

/** The address that a reverse name stands for (RFC 1035 3.5, RFC 3596 2.5). @returns null for another name, or one of a part of an address */
export function addressOfReverse(name: string): Address | null {
  if (name.endsWith(".in-addr.arpa")) return parseIpv4(name.slice(0, -13).split(".").reverse().join("."));
  const nibbles = /^((?:[\da-f]\.){32})ip6\.arpa$/.exec(name)?.[1];
  return nibbles === undefined ? null : BigInt(`0x${nibbles.split(".").reverse().join("")}`);
}
