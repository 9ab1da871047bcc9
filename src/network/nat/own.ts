/** The router's own addresses. */
import { type Address, isLinkLocal, type Subnet, type Subnet6 } from "./address.ts";

/** Those of IPv6; `network` is the /64 whose addresses guests make for themselves. */
export type Own6 = { readonly network: Subnet6; readonly gateway: bigint; readonly host: bigint; readonly linkLocal: bigint };
/** `gateway` is the router itself, behind `host` lies the host's loopback. */
export type Own = { readonly network: Subnet; readonly gateway: number; readonly host: number; /** null: there is no IPv6 */ readonly v6: Own6 | null };

/** Is it one of them? */
export const isOwn = ({ gateway, host, v6 }: Own, address: Address): boolean =>
  typeof address === "number" ? address === gateway || address === host : v6 !== null && (address === v6.gateway || address === v6.host || address === v6.linkLocal);
/** Under which of them the router itself answers. */
export const isGateway = ({ gateway, v6 }: Own, address: Address): boolean => address === gateway || (v6 !== null && (address === v6.gateway || address === v6.linkLocal));
/** From which of them it speaks with a guest. */
export const gatewayFor = ({ gateway, v6 }: Own, guest: Address): Address => (typeof guest === "number" || !v6 ? gateway : isLinkLocal(guest) ? v6.linkLocal : v6.gateway);
