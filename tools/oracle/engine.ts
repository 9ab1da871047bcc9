/** Our engine as a subject. */
import { UserError } from "../../src/base/errors.ts";
import type { Subject } from "./format.ts";

export function engineSubject(): Subject { throw new UserError("The engine is not connected yet"); }
