/**
 * How much a TCP sender may have in flight and how long it waits: slow start and congestion avoidance (RFC 5681), NewReno's recovery (RFC 6582), the
 * retransmission timer (RFC 6298). Sequence numbers are 32 bits and compared modulo 2^32.
 */
const RTO_FIRST_MS = 1000, RTO_MIN_MS = 200, RTO_MAX_MS = 60_000, GRANULARITY_MS = 10;
const INITIAL_SEGMENTS = 10 /* RFC 6928 */, CWND_BYTES_MAX = 4 << 20;

/** What the sender has to do after an acknowledgement. */
export type AckAdvice = "nothing" | "retransmit";

/** The state of one sender. */
export class Congestion {
  readonly #mss: number;
  cwnd: number;
  ssthresh = Number.POSITIVE_INFINITY;
  isRecovering = false;
  #recover = 0;
  #nrDuplicates = 0;
  #srttMs = 0;
  #rttvarMs = 0;
  #rtoMs = RTO_FIRST_MS;
  #nrBackoffs = 0;
  /** the byte whose acknowledgement is timed and when it was sent; one at a time, never one that was sent twice (Karn) */
  #timedSeq = 0;
  #timedMs = -1;

  /** @param iss nothing before it was ever sent */
  constructor(mss: number, iss: number) {
    this.#mss = mss;
    this.cwnd = INITIAL_SEGMENTS * mss;
    this.#recover = iss;
  }

  get rtoMs(): number {
    return Math.min(RTO_MAX_MS, this.#rtoMs * 2 ** this.#nrBackoffs);
  }
  /** New data that ends before `seq` leaves. */
  sent(seq: number, nowMs: number): void {
    if (this.#timedMs >= 0) return;
    this.#timedSeq = seq;
    this.#timedMs = nowMs;
  }
  #sample(rttMs: number): void {
    if (this.#srttMs === 0) {
      this.#srttMs = Math.max(rttMs, 1);
      this.#rttvarMs = rttMs / 2;
    } else {
      this.#rttvarMs += (Math.abs(this.#srttMs - rttMs) - this.#rttvarMs) / 4;
      this.#srttMs += (rttMs - this.#srttMs) / 8;
    }
    this.#rtoMs = Math.max(RTO_MIN_MS, this.#srttMs + Math.max(GRANULARITY_MS, 4 * this.#rttvarMs));
  }

  /** `nBytes` more were acknowledged, up to `ack`; `flight` are still out. */
  acked(ack: number, nBytes: number, flight: number, nowMs: number): AckAdvice {
    this.#nrDuplicates = 0;
    this.#nrBackoffs = 0;
    if (this.#timedMs >= 0 && ((ack - this.#timedSeq) | 0) >= 0) {
      this.#sample(nowMs - this.#timedMs);
      this.#timedMs = -1;
    }
    if (this.isRecovering) {
      if (((ack - this.#recover) | 0) >= 0) {
        this.isRecovering = false;
        this.cwnd = Math.min(this.ssthresh, Math.max(flight, this.#mss) + this.#mss);
        return "nothing";
      }
      // A partial acknowledgement: the next hole begins at `ack`.
      this.cwnd = Math.max(this.#mss, this.cwnd - nBytes + (nBytes >= this.#mss ? this.#mss : 0));
      return "retransmit";
    }
    // Slow start counts all bytes, as the guest may acknowledge 64 KiB at once (RFC 3465 with L unlimited: the link has no queue of others).
    this.cwnd = Math.min(CWND_BYTES_MAX, this.cwnd + (this.cwnd < this.ssthresh ? nBytes : Math.max(1, Math.floor((this.#mss * Math.min(nBytes, this.cwnd)) / this.cwnd))));
    return "nothing";
  }
  /** An acknowledgement said nothing new while data was out: `una` still waits, `next` is behind all that was sent. */
  duplicate(una: number, next: number): AckAdvice {
    if (this.isRecovering) {
      this.cwnd = Math.min(CWND_BYTES_MAX, this.cwnd + this.#mss);
      return "nothing";
    }
    if (++this.#nrDuplicates !== 3 || ((una - this.#recover) | 0) <= 0) return "nothing";
    this.#recover = next;
    this.isRecovering = true;
    this.#timedMs = -1;
    this.ssthresh = Math.max(((next - una) >>> 0) >>> 1, 2 * this.#mss);
    this.cwnd = this.ssthresh + 3 * this.#mss;
    return "retransmit";
  }
  /** The timer ran out: all from `una` on counts as lost. */
  timedOut(una: number, next: number): void {
    // Not a second time for the same loss (RFC 5681, section 3.1).
    if (this.#nrBackoffs === 0) this.ssthresh = Math.max(((next - una) >>> 0) >>> 1, 2 * this.#mss);
    this.cwnd = this.#mss;
    this.#recover = next;
    this.isRecovering = false;
    this.#nrDuplicates = 0;
    this.backOff();
  }
  backOff(): void {
    this.#timedMs = -1;
    this.#nrBackoffs = Math.min(this.#nrBackoffs + 1, 16);
  }
  /** The peer is there: the next wait is as the round trips say. */
  alive(): void {
    this.#nrBackoffs = 0;
  }
}
