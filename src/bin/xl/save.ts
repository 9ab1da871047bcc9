/** Verbs that carry domains through time and space. */
import type { Verb } from "./verb.ts";

/** The verbs. */
export const SAVE_VERBS: readonly Verb[] = [
  { name: "save", help: "Save a domain to a file", args: "[options] <Domain> <CheckpointFile> [<ConfigFile>]", minWords: 2 },
  { name: "restore", help: "Make a domain from a saved one", args: "[options] [<ConfigFile>] <CheckpointFile>", minWords: 1 },
  { name: "migrate", help: "Move a domain to another host", args: "[options] <Domain> <host>", minWords: 2 },
  { name: "migrate-receive", help: "Take a domain in, from stdin", args: "- for internal use only" },
];
