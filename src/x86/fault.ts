/**
 * An exception of the guest, on its way from the helper that found it to the place that records or delivers it. Thrown before anything
 * of the instruction took effect. It is paid in the protocol's own coin (a vector), so it carries no stack and is no `Error`.
 */
export class GuestFault {
  /** VECTOR.*, or one of NO_VECTOR */
  readonly vector: number;
  /** error code, or -1 where the vector has none */
  readonly errorCode: number;
  constructor(vector: number, errorCode = -1) {
    this.vector = vector;
    this.errorCode = errorCode;
  }
}
/**
 * What stops an instruction like a fault, and is none of the guest's. retry: it shall be executed once more, by its stub; awaited: the guest frame that stands in place of the error
 * code has not come yet (P2M_AWAITED), and the instruction is made again when it has.
 */
export const NO_VECTOR = { retry: 255, awaited: 254 } as const;
