/** What the halves of a network device's queue share: their device as they see it, and time. */
import type { Frame, Port } from "../../network/port.ts";
import type { GrantAccess } from "../grants.ts";
import type { FrontFeatures } from "./features.ts";

/** Timers; `hostClock` of the network room is one, tests have their own. */
export interface Timers {
  /** Call `act` once, `delayMs` from now. @returns takes it back */
  after(delayMs: number, act: () => void): () => void;
}
/** A limit on what the guest sends; the network room's TokenBucket is one. */
export interface TxRate {
  /** milliseconds until so many bytes may go: 0 when they may now */
  waitMs(lengthBytes: number): number;
  spend(lengthBytes: number): void;
}

/** The device as its queues see it. */
export interface NetDevice {
  readonly gnt: GrantAccess;
  readonly features: FrontFeatures;
  readonly timers: Timers;
  readonly rate: TxRate | null;
  /** payload bytes of the longest ordinary frame that is let through from the guest */
  readonly mtu: number;
  readonly peer: Port | null;
  readonly isDead: boolean;
  /** the frames to send so that `peer` can take them: `frame` itself, its segments, none */
  suited(frame: Frame, peer: Port): Frame[];
  /** Log one of the first few sentences about what the guest does. */
  complain(sentence: string): void;
  /** The front end is beyond repair: nothing is taken from it or given to it any more. */
  die(sentence: string): void;
}

/** of a granted page */
export const PAGE_BYTES = 4096;
/** Ethernet header */
export const FRAME_BYTES_MIN = 14;
/** netif's sizes have 16 bits */
export const FRAME_BYTES_MAX = 0xffff;
/**
 * Work done in one poll before the thread's other tasks have their turn: a frame costs its bytes, or a page for each ring entry if that is more.
 * About a millisecond.
 */
export const POLL_BYTES = 1 << 20;
/** @see POLL_BYTES */
export const pollCost = (lengthBytes: number, nrEntries: number): number => Math.max(lengthBytes, nrEntries * PAGE_BYTES);
