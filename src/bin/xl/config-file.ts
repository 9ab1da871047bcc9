/** Reading a configuration file as `xl create` does: the file, what the command line adds, warnings, and libxl's JSON of it all. */
import { UserError } from "../../base/errors.ts";
import { fromXl } from "../../toolstack/config.ts";
import { type LibxlConfig, toLibxl } from "../../toolstack/libxl-json.ts";
import { applySetting, isSetting, parseXlCfg, type Setting } from "../../toolstack/xlcfg.ts";
import { pathFrom, pathOf } from "../paths.ts";
import { readWhole } from "../run.ts";
import { Leave, type Line, RC, type Xl } from "./verb.ts";

const MAX_CFG_BYTES = 1 << 20;

/** The file's name of a line: the -f option, else the first word that sets nothing. */
export function fileOf(line: Line): { file: string | undefined; settings: readonly string[]; others: readonly string[] } {
  const settings = line.words.filter(isSetting), words = line.words.filter((w) => !isSetting(w)), given = line.options.get("f");
  return given === undefined ? { file: words[0], settings, others: words.slice(1) } : { file: given, settings, others: words };
}
/** A word may set several keys, a semicolon apart, as the manual's examples do. */
function applyWord(settings: Map<string, Setting>, word: string): void {
  let several: Map<string, Setting>;
  try { several = parseXlCfg(word, "command line"); } catch { return applySetting(settings, word); }       // quotes that the shell has eaten
  if (several.size > 1 || (several.size === 1 && !/^\s*\w+\s*\+=/.test(word))) for (const [key, value] of several) settings.set(key, value);
  else applySetting(settings, word);
}

/** What the file and the command line say. `isComplete`: as the daemon takes it, paths and addresses in full; else as `xl create -n` prints it. @throws Leave with xl's codes */
export function readConfig(xl: Xl, file: string, words: readonly string[], o: { readonly isComplete: boolean; readonly isQuiet: boolean }): LibxlConfig {
  if (!o.isQuiet) xl.say(`Parsing config from ${file}`);
  let text: string;
  try {
    const bytes = readWhole(file, "configuration", MAX_CFG_BYTES);
    if (bytes.includes(0)) throw new UserError(`configuration: ${file} is not text`);
    text = new TextDecoder().decode(bytes);
  } catch (e) {
    if (!(e instanceof UserError)) throw e;
    throw new Leave(-RC.fail, `Failed to read config file: ${/does not exist/.test(e.message) ? `${file}: No such file or directory` : e.message}`);
  }
  try {
    const settings = parseXlCfg(text, file);
    for (const word of words) applyWord(settings, word);
    const { domain, warnings } = fromXl(settings, file);
    if (!o.isQuiet) for (const w of warnings) xl.say(`${w}`);
    return toLibxl(domain, settings, o.isComplete ? { path: (p) => pathFrom(process.cwd(), pathOf(p, file)), isComplete: true } : {});
  } catch (e) {
    if (!(e instanceof UserError)) throw e;
    throw new Leave(1, `${e.message}\nFailed to parse config: Invalid argument`);
  }
}
