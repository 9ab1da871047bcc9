/** Whether there is IPv6: out where the host has it; always out; never out, guests, router and host alone; or not at all. */
export const IPV6_CHOICES = ["auto", "always", "local", "none"] as const;
/** One of them. */
export type Ipv6Choice = (typeof IPV6_CHOICES)[number];
