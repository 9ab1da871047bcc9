/**
 * Runs a TypeScript file, or Node's test runner, with a fit Node on a clone in any state: installs what is missing first.
 * node tools/setup/run.mjs [flags of node] file.ts [arguments]
 */
import { become, fitNode, install, isInstalled, noFitNode, V8_FLAGS } from "../../bin/fit-node.mjs";

if (!isInstalled()) install();
become(fitNode() ?? noFitNode(), [...V8_FLAGS, ...process.argv.slice(2)]);
