/** Writes src/abi/golden/*.json. Needs a C compiler and the headers of Debian's libxen-dev. */
import { mkdirSync, writeFileSync } from "node:fs";
import { MODULES } from "./c-names.ts";
import { goldenName, goldenText, probe } from "./probe.node.ts";

const dir = new URL("../../src/abi/golden/", import.meta.url);
mkdirSync(dir, { recursive: true });
for (const module of Object.keys(MODULES)) writeFileSync(new URL(goldenName(module), dir), goldenText(await probe(module)));
