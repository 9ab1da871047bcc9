/**
 * Who has the guest: the two ends of a migration as state machines without input or output. Messages are xl's (tools/xl/xl_migrate.c): the receiver says READY when it
 * has all and could run it, the sender GO, the receiver what came of it.
 *
 * The guest runs where the last of these stands: sender `sending` or `kept`, receiver `running`. The sender gives it away by its word `given`, noted where its own death does not
 * reach before GO is sent, and takes it back only when it knows that the receiver does not have it. Between GO and the report nobody knows: who has lost the other then waits, stopped, until
 * it is told (`answer`), by a new connection, by the other's notes after its death, or by a person. A guest dies only with the side that has it.
 */

/** What an end says it is, to the other or in its notes; never ahead of the notes: given, kept, ready and running are said when they are written. dropped: also of one that was noted ready by a process that is no more. unknown: never heard of it, and nothing is noted: of a receiver that had said READY it means nothing, for its notes are lost. */
export type Standing = "sending" | "given" | "kept" | "receiving" | "ready" | "running" | "dropped" | "unknown";

/** sending: the guest is ours; given: GO is on its way; doubt: given, and the link is gone; kept: ours again, or still; gone: the receiver's */
export type SenderState = "sending" | "given" | "doubt" | "kept" | "gone";
export type SenderEvent = { readonly kind: "ready" | "started" | "notStarted" | "lost" | "failed" } | { readonly kind: "answer"; readonly standing: Standing };
/** note*: write it down and wait until it stands; then the next. */
export type SenderAction = "noteGiven" | "sendGo" | "noteKept" | "resume" | "end" | "ask";

/** A step of the sender. `failed`: its own error, or a cancel. */
export function senderStep(state: SenderState, event: SenderEvent): [SenderState, readonly SenderAction[]] {
  const keep: [SenderState, readonly SenderAction[]] = ["kept", ["noteKept", "resume"]];
  switch (state) {
    case "sending":
      if (event.kind === "ready") return ["given", ["noteGiven", "sendGo"]];
      return event.kind === "lost" || event.kind === "failed" || event.kind === "notStarted" ? keep : [state, []];
    case "given":
      if (event.kind === "started") return ["gone", ["end"]];
      if (event.kind === "notStarted") return keep;
      return event.kind === "lost" ? ["doubt", ["ask"]] : [state, []];
    case "doubt":
      if (event.kind !== "answer") return [state, []];
      if (event.standing === "running") return ["gone", ["end"]];
      // "ready" decides nothing: it will ask in its turn, hear "given", and run. Nor does "unknown": it had said READY, and may have run since
      return event.standing === "dropped" ? keep : [state, []];
    case "kept": case "gone": return [state, []];
    default: return state satisfies never;
  }
}

/** ready: we have all and could run it; doubt: ready, and the link is gone */
export type ReceiverState = "receiving" | "ready" | "doubt" | "running" | "dropped";
export type ReceiverEvent = { readonly kind: "complete" | "go" | "lost" | "failed" } | { readonly kind: "answer"; readonly standing: Standing };
export type ReceiverAction = "noteReady" | "sendReady" | "noteRunning" | "start" | "report" | "drop" | "ask";

/** A step of the receiver. `failed` after `ready` is its own inability to start what it has: it says so, and the sender resumes. */
export function receiverStep(state: ReceiverState, event: ReceiverEvent): [ReceiverState, readonly ReceiverAction[]] {
  switch (state) {
    case "receiving":
      if (event.kind === "complete") return ["ready", ["noteReady", "sendReady"]];
      return event.kind === "lost" || event.kind === "failed" ? ["dropped", ["drop"]] : [state, []];
    case "ready":
      if (event.kind === "go") return ["running", ["noteRunning", "start", "report"]];
      if (event.kind === "failed") return ["dropped", ["drop", "report"]];
      return event.kind === "lost" ? ["doubt", ["ask"]] : [state, []];
    case "doubt":
      if (event.kind === "go") return ["running", ["noteRunning", "start", "report"]];
      if (event.kind !== "answer") return [state, []];
      // it lives and has not decided: what it makes of the lost link is "kept"
      if (event.standing === "kept") return ["dropped", ["drop"]];
      // given; or it died, with the guest, before it could take it back
      return event.standing === "given" || event.standing === "unknown" ? ["running", ["noteRunning", "start", "report"]] : [state, []];
    case "running": case "dropped": return [state, []];
    default: return state satisfies never;
  }
}
