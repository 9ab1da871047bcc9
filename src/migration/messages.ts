/** What the ends of a migration say beside the stream: xl's sentences, without any length before them. tools/xl/xl_migrate.c. `asItIs` is ours, said to a sender that named the guest's number: the guest need not suspend itself */
import { type Source, StreamError } from "./stream.ts";

export const MESSAGE = {
  banner: "xl migration receiver ready, send binary domain data.\n", asItIs: "domus receiver: it may come as it is.\n", ready: "domain received, ready to unpause", go: "domain is yours, you are cleared to unpause",
  report: "my copy unpause results are as follows",
} as const;
export type Message = keyof typeof MESSAGE;
/** xl's report ends with a byte, 0 for success. Ours has a length and a sentence after another value. */
const FAILED = 1, TEXT_MAX = 4096;

/** A message's bytes. @param failure of a report: why it did not start */
export function messageBytes(message: Message, failure?: string): Uint8Array {
  const text = new TextEncoder().encode(MESSAGE[message]);
  if (message !== "report") return text;
  const why = new TextEncoder().encode(failure ?? "").subarray(0, TEXT_MAX), bytes = new Uint8Array(text.length + 1 + (failure === undefined ? 0 : 4 + why.length));
  bytes.set(text);
  if (failure === undefined) return bytes;
  bytes[text.length] = FAILED;
  new DataView(bytes.buffer).setUint32(text.length + 1, why.length, true);
  bytes.set(why, text.length + 5);
  return bytes;
}
/** The next message. @returns for a report: null, or why the other end did not start the domain @throws StreamError for anything else, and where the link ends */
export async function readMessage(from: Source): Promise<{ readonly message: Message; readonly failure: string | null }> {
  from.what = "a message of the other end";
  for (let text = ""; ;) {
    text += String.fromCharCode((await from.exactly(1))[0]!);
    const kind = (Object.keys(MESSAGE) as Message[]).find((m) => MESSAGE[m] === text);
    if (kind && kind !== "report") return { message: kind, failure: null };
    if (kind) {
      if ((await from.exactly(1))[0] === 0) return { message: kind, failure: null };
      const length = new DataView((await from.exactly(4)).buffer).getUint32(0, true);
      if (length > TEXT_MAX) throw new StreamError("The other end's report is longer than any: it does not speak as xl does");
      return { message: kind, failure: new TextDecoder().decode(await from.exactly(length)).replace(/[^ -~]/g, "?") || "it does not say why" };
    }
    if (!Object.values(MESSAGE).some((m) => m.startsWith(text))) throw new StreamError(`The other end says "${text.replace(/[^ -~]/g, "?")}": it does not speak as xl does`);
  }
}
