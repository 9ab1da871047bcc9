import assert from "node:assert/strict";
import { test } from "node:test";
import { type ReceiverAction, receiverStep, type ReceiverEvent, type ReceiverState, type SenderAction, senderStep, type SenderEvent, type SenderState, type Standing } from "./commit.ts";

type Side = "sender" | "receiver";
/** Both ends, what they have yet to do, what is on the wire. Actions are done one at a time, so that death and loss come between any two. */
type World = {
  sender: SenderState; receiver: ReceiverState;
  isAlive: Record<Side, boolean>;
  /** outlive their side */
  notes: Record<Side, Standing | null>;
  todo: { sender: SenderAction[]; receiver: ReceiverAction[] };
  wire: { sender: SenderEvent["kind"][]; receiver: ReceiverEvent["kind"][] };
  isWhole: boolean;
  hasHeard: Record<Side, boolean>;
  /** where it runs, or would go on */
  runsAt: Record<Side, boolean>;
  /** has gone on after the handing over began: what it did then must not be undone by the other copy */
  wentOnAt: Side | "both" | null;
  diedWith: Side | null;
};
const begin = (): World => ({
  sender: "sending", receiver: "receiving", isAlive: { sender: true, receiver: true }, notes: { sender: null, receiver: null }, todo: { sender: [], receiver: [] }, wire: { sender: [], receiver: [] },
  isWhole: true, hasHeard: { sender: false, receiver: false }, runsAt: { sender: true, receiver: false }, wentOnAt: null, diedWith: null,
});
function tellSender(w: World, event: SenderEvent): void {
  const [state, actions] = senderStep(w.sender, event);
  w.sender = state;
  if (state === "given" || state === "doubt" || state === "gone") w.runsAt.sender = false;        // it stands still, and will not go on by itself
  w.todo.sender.push(...actions);
}
function tellReceiver(w: World, event: ReceiverEvent): void {
  const [state, actions] = receiverStep(w.receiver, event);
  w.receiver = state;
  w.todo.receiver.push(...actions);
}
function goOn(w: World, side: Side): void {
  w.runsAt[side] = true;
  w.wentOnAt = w.wentOnAt === null || w.wentOnAt === side ? side : "both";
}
/** What a side says when it is asked: what it has written, or, alive, what goes before that. */
function standing(w: World, side: Side): Standing {
  if (!w.isAlive[side] && w.notes[side] === "ready") return "dropped";        // standingNoted
  if ((w.notes[side] !== null && w.notes[side] !== "ready") || !w.isAlive[side]) return w.notes[side] ?? "unknown";
  return side === "sender" ? "sending" : w.receiver === "receiving" || w.receiver === "dropped" ? w.receiver : "ready";
}

/** Things that happen by themselves. Each is possible or not in a world, and changes it. */
const STEPS: Readonly<Record<string, (w: World) => boolean | void>> = {
  "the sender acts": (w) => {
    const action = w.isAlive.sender ? w.todo.sender.shift() : undefined;
    if (action === "noteGiven") w.notes.sender = "given";
    if (action === "noteKept") w.notes.sender = "kept";
    if (action === "sendGo" && w.isWhole) w.wire.receiver.push("go");
    if (action === "resume") goOn(w, "sender");
    return action !== undefined;
  },
  "the receiver acts": (w) => {
    const action = w.isAlive.receiver ? w.todo.receiver.shift() : undefined;
    if (action === "noteReady") w.notes.receiver = "ready";
    if (action === "sendReady" && w.isWhole) w.wire.sender.push("ready");
    if (action === "noteRunning") w.notes.receiver = "running";
    if (action === "start") goOn(w, "receiver");
    if (action === "report" && w.isWhole) w.wire.sender.push(w.receiver === "running" ? "started" : "notStarted");
    return action !== undefined;
  },
  "the sender hears": (w) => {
    const kind = w.isAlive.sender && w.todo.sender.length === 0 ? w.wire.sender.shift() : undefined;
    if (kind) tellSender(w, { kind } as SenderEvent);
    return kind !== undefined;
  },
  "the receiver hears": (w) => {
    const kind = w.isAlive.receiver && w.todo.receiver.length === 0 ? w.wire.receiver.shift() : undefined;
    if (kind) tellReceiver(w, { kind } as ReceiverEvent);
    return kind !== undefined;
  },
  "all has arrived": (w) => {
    if (!w.isWhole || !w.isAlive.receiver || !w.isAlive.sender || w.receiver !== "receiving" || w.sender !== "sending") return false;
    tellReceiver(w, { kind: "complete" });
  },
  "the sender notices": (w) => {
    if (w.isWhole || !w.isAlive.sender || w.hasHeard.sender || w.wire.sender.length || w.todo.sender.length) return false;
    w.hasHeard.sender = true;
    tellSender(w, { kind: "lost" });
  },
  "the receiver notices": (w) => {
    if (w.isWhole || !w.isAlive.receiver || w.hasHeard.receiver || w.wire.receiver.length || w.todo.receiver.length) return false;
    w.hasHeard.receiver = true;
    tellReceiver(w, { kind: "lost" });
  },
  "the sender asks": (w) => {
    if (!w.isAlive.sender || w.sender !== "doubt" || w.todo.sender.length) return false;
    tellSender(w, { kind: "answer", standing: standing(w, "receiver") });
  },
  "the receiver asks": (w) => {
    if (!w.isAlive.receiver || w.receiver !== "doubt" || w.todo.receiver.length) return false;
    tellReceiver(w, { kind: "answer", standing: standing(w, "sender") });
  },
};
const kill = (side: Side) => (w: World): boolean | void => {
  if (!w.isAlive[side]) return false;
  w.isAlive[side] = false;
  // the guest lives on if this end has not written down that it is its own, and the other has it whole
  const hasIt = w.isAlive.receiver && (w.receiver === "ready" || w.receiver === "doubt" || w.receiver === "running");
  if (w.notes[side] === "running" || w.notes[side] === "kept" || (side === "sender" && !hasIt)) w.diedWith ??= side;
  w.runsAt[side] = false;
  w.todo[side].length = w.wire[side].length = 0;
  w.isWhole = false;
};
/** Things that go wrong. */
const MISHAPS: typeof STEPS = {
  "the wire breaks": (w) => { if (!w.isWhole) return false; w.isWhole = false; },
  "a message to the sender is lost": (w) => (w.isWhole ? false : w.wire.sender.shift() !== undefined),
  "a message to the receiver is lost": (w) => (w.isWhole ? false : w.wire.receiver.shift() !== undefined),
  "the sender dies": kill("sender"),
  "the receiver dies": kill("receiver"),
  "the sender is cancelled": (w) => { if (!w.isAlive.sender || w.sender !== "sending") return false; tellSender(w, { kind: "failed" }); },
  "the receiver fails": (w) => { if (!w.isAlive.receiver || (w.receiver !== "receiving" && w.receiver !== "ready") || w.todo.receiver.length) return false; if (!w.isAlive.sender) w.diedWith ??= "receiver"; tellReceiver(w, { kind: "failed" }); },
};

test("whatever fails or dies when, in every order, the guest never runs twice, and runs once as soon as those who live have asked each other", () => {
  const known = new Map<string, string[]>(), queue: World[] = [];
  const meet = (w: World, way: string[]): void => {
    const key = JSON.stringify(w);
    if (known.has(key)) return;
    known.set(key, way);
    queue.push(w);
    assert.ok(!(w.runsAt.sender && w.runsAt.receiver), `the guest runs twice: ${way.join(", ")}`);
    assert.notEqual(w.wentOnAt, "both", `the guest went on in one place, and then from before in the other: ${way.join(", ")}`);
  };
  meet(begin(), []);
  for (let w = queue.pop(); w; w = queue.pop()) {
    const way = known.get(JSON.stringify(w))!;
    let isOver = true;
    for (const [name, step] of [...Object.entries(STEPS), ...Object.entries(MISHAPS)]) {
      const next = structuredClone(w);
      if (step(next) === false) continue;
      if (name in STEPS && JSON.stringify(next) !== JSON.stringify(w)) isOver = false;
      meet(next, [...way, name]);
    }
    if (!isOver || (!w.isAlive.sender && !w.isAlive.receiver)) continue;
    const nr = Number(w.runsAt.sender) + Number(w.runsAt.receiver);
    assert.equal(nr, w.diedWith === null ? 1 : 0, `${w.diedWith === null ? "it runs nowhere" : `it died with the ${w.diedWith} and runs`}: ${way.join(", ")}`);
  }
  assert.ok(known.size > 500, `only ${known.size} worlds were met`);
});

test("what comes at a wrong time changes nothing", () => {
  assert.deepEqual(senderStep("sending", { kind: "started" }), ["sending", []]);
  assert.deepEqual(senderStep("gone", { kind: "answer", standing: "dropped" }), ["gone", []]);
  assert.deepEqual(senderStep("given", { kind: "failed" }), ["given", []]);          // a cancel that comes too late
  assert.deepEqual(senderStep("doubt", { kind: "answer", standing: "ready" }), ["doubt", []]);
  assert.deepEqual(senderStep("doubt", { kind: "answer", standing: "unknown" }), ["doubt", []]);      // it had said READY: its notes are lost
  assert.deepEqual(receiverStep("receiving", { kind: "go" }), ["receiving", []]);
  assert.deepEqual(receiverStep("doubt", { kind: "answer", standing: "sending" }), ["doubt", []]);
  assert.deepEqual(receiverStep("running", { kind: "lost" }), ["running", []]);
});
