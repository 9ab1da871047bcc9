/** Ours: an inconsistency of our own. Never reached by a number a guest supplies. */
export function assert(cond: unknown, what: string): asserts cond {
  if (!cond) throw new Error(`Assertion failed: ${what}`);
}
/** The user's or the input's fault: a bad file, image, config or option. The message names the thing and the remedy; it is printed without a stack. */
export class UserError extends Error {
  override name = "UserError";
}
