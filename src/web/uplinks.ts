import type { UplinkMaker } from "../toolstack/networks.ts";
export const webUplinks = (_log: (s: string) => void): UplinkMaker => () => null;
