/** The shared folders of a configuration, and of `--share`. */
import { UserError } from "../base/errors.ts";
import { nodeFolder } from "../drivers/9p/folder.node.ts";
import { type CheckedConfig, type ShareConfig, tagTwice } from "../toolstack/config.ts";
import { faultAt } from "../toolstack/xlcfg.ts";
import { type P9Spec, tagFault } from "../toolstack/xlp9.ts";
import { pathOf } from "./paths.ts";

/** See that they can be had; they are opened when the domain is made. @param file the configuration they stand in @throws UserError at the place of the one that cannot */
export function findShares(specs: readonly P9Spec[], file: string): ShareConfig[] {
  return specs.map(({ tag, path, isReadonly, place }) => {
    try { return { tag, isReadonly, source: nodeFolder(pathOf(path, file)) }; } catch (e) { throw e instanceof UserError ? faultAt(place, `p9: ${e.message}`) : e; }
  });
}
/** The tag of a folder that was given without. */
const DEFAULT_TAG = "share";
/** "[TAG=]FOLDER[,readonly]". @throws UserError */
export function parseShare(text: string): ShareConfig {
  const isReadonly = text.endsWith(",readonly"), rest = isReadonly ? text.slice(0, -",readonly".length) : text, equals = rest.indexOf("="), hasTag = equals > 0 && !rest.slice(0, equals).includes("/");
  const tag = hasTag ? rest.slice(0, equals) : DEFAULT_TAG, path = hasTag ? rest.slice(equals + 1) : rest, fault = tagFault(tag) ?? (path === "" ? "No folder is named" : null);
  if (fault !== null) throw new UserError(`Option "--share": ${fault}; write --share [TAG=]FOLDER[,readonly]`);
  try { return { tag, isReadonly, source: nodeFolder(path) }; } catch (e) { throw e instanceof UserError ? new UserError(`Option "--share": ${e.message}`) : e; }
}
/** Give each of the domains those of the command line. @throws UserError where a tag is taken */
export function withShares(configs: readonly CheckedConfig[], shares: readonly ShareConfig[]): readonly CheckedConfig[] {
  return configs.map((config) => {
    const all = [...config.shares, ...shares], twice = tagTwice(all);
    if (twice) throw new UserError(`Option "--share": ${config.name} has a folder with the tag "${twice.tag}" already; write --share OTHER=${twice.source.path}`);
    return { ...config, shares: all };
  });
}
