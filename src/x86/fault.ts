/**
 * An exception of the guest, on its way from the helper that found it to the place that records or delivers it. Thrown before anything
 * of the instruction took effect. It is paid in the protocol's own coin (a vector), so it carries no stack and is no `Error`.
 */
export class GuestFault {
  /** VECTOR.* */
  readonly vector: number;
  /** error code, or -1 where the vector has none */
  readonly errorCode: number;
  constructor(vector: number, errorCode = -1) {
    this.vector = vector;
    this.errorCode = errorCode;
  }
}
