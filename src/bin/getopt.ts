/** Options as getopt_long(3) takes them: short ones together, long ones by any unique beginning, words between them, "--" ends them. */
export type GetoptOption = { readonly short?: string; readonly long?: string; readonly value?: true };
/** An option met, in order; `name` is the short name where there is one. */
export type Met = { readonly name: string; readonly value: string };

/**
 * Unknown options are told to `complain` and left out, as programs do that go on after getopt's "?".
 * @returns what stands on the line, and the words
 */
export function getopt(args: readonly string[], known: readonly GetoptOption[], complain: (sentence: string) => void): { met: Met[]; words: string[] } {
  const met: Met[] = [], words: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--") { words.push(...args.slice(i + 1)); break; }
    if (!arg.startsWith("-") || arg === "-") { words.push(arg); continue; }
    if (arg.startsWith("--")) {
      const equals = arg.indexOf("="), typed = arg.slice(2, equals < 0 ? undefined : equals);
      const exact = known.filter((o) => o.long === typed), near = exact.length ? exact : known.filter((o) => o.long?.startsWith(typed)), option = near[0];
      if (!option) complain(`unrecognized option '--${typed}'`);
      else if (near.length > 1) complain(`option '${arg}' is ambiguous; possibilities: ${near.map((o) => `'--${o.long}'`).join(" ")}`);
      else if (!option.value && equals >= 0) complain(`option '--${option.long}' doesn't allow an argument`);
      else if (option.value && equals < 0 && i + 1 === args.length) complain(`option '--${option.long}' requires an argument`);
      else met.push({ name: option.short ?? option.long!, value: option.value ? (equals < 0 ? args[++i]! : arg.slice(equals + 1)) : "" });
      continue;
    }
    for (let at = 1; at < arg.length; at++) {
      const letter = arg[at]!, option = known.find((o) => o.short === letter), rest = arg.slice(at + 1);
      if (!option) { complain(`invalid option -- '${letter}'`); continue; }
      if (option.value && rest === "" && i + 1 === args.length) { complain(`option requires an argument -- '${letter}'`); break; }
      met.push({ name: letter, value: option.value ? rest || args[++i]! : "" });
      if (option.value) break;
    }
  }
  return { met, words };
}
