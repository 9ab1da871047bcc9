/**
 * Which of a host's apt sources lead to Debian's own archive, for another Debian to be made from.
 * @see sources.list(5), both its formats
 */
import { UserError } from "../base/errors.ts";

/** One archive: a stanza in deb822 terms. Only what a Debian to be made wants of it. */
export type Source = { readonly uris: readonly string[]; readonly suites: readonly string[]; readonly components: readonly string[]; /** Signed-By as it stands: a path, or a key over several lines */ readonly signedBy?: string };

const words = (text: string | undefined): string[] => text?.trim().split(/\s+/).filter((w) => w !== "") ?? [];

/** The enabled binary sources of a file; `.sources` files are deb822, others have a line for each. */
export function parseSources(text: string, path: string): Source[] {
  return path.endsWith(".sources") ? parseStanzas(text) : text.split("\n").flatMap(parseLine);
}

function parseStanzas(text: string): Source[] {
  return text.replace(/^#.*\n?/gm, "").split(/\n\s*\n/).flatMap((stanza) => {
    const fields = new Map([...stanza.matchAll(/^([\w-]+):[ \t]*(.*(?:\n[ \t]+.*)*)/gm)].map((m) => [m[1]!.toLowerCase(), m[2]!.trim()]));
    if (!words(fields.get("types")).includes("deb") || /^(?:no|false|off|0)$/i.test(fields.get("enabled") ?? "")) return [];
    const signedBy = fields.get("signed-by");
    return [{ uris: words(fields.get("uris")), suites: words(fields.get("suites")), components: words(fields.get("components")), ...(signedBy ? { signedBy } : {}) }];
  });
}

function parseLine(line: string): Source[] {
  const found = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
  if (!found) return [];
  const signedBy = /(?:^|\s)signed-by=(\S+)/i.exec(found[1] ?? "")?.[1];
  return [{ uris: [found[2]!], suites: [found[3]!], components: words(found[4]), ...(signedBy ? { signedBy } : {}) }];
}

/** Suites of one release that a system lives on: itself, its updates, its security updates. */
const SUITE = /^([a-z]+)(-updates|-security|\/updates)?$/;
const isDebian = (s: Source): boolean => s.components.includes("main") && s.suites.every((x) => !x.endsWith("/") || x === "/updates")
  && (/debian-archive/.test(s.signedBy ?? "") || s.uris.every((u) => /\/debian(?:-security|-archive)?\/?$/.test(u)));

/**
 * The sources to make a Debian from: those of the host that lead to Debian's archive.
 * @param wanted the release's name; otherwise the one that the host's sources name
 * @throws UserError where the host has none
 */
export function debianSources(host: readonly Source[], wanted?: string): { suite: string; sources: Source[] } {
  const debian = host.filter(isDebian), release = (suite: string): string | undefined => SUITE.exec(suite)?.[1];
  const own = debian.flatMap((s) => s.suites).find((x) => SUITE.exec(x)?.[1] === x), suite = wanted ?? own;
  if (!own || !suite) throw new UserError("This computer's apt sources name no Debian archive to make an image from; name one: --mirror URI --suite NAME");
  const sources = debian.flatMap((s) => {
    const suites = s.suites.filter((x) => release(x) === own).map((x) => suite + x.slice(own.length));
    return suites.length ? [{ ...s, suites }] : [];
  });
  return { suite, sources };
}

/** The sources as a deb822 file, for apt and mmdebstrap to read. */
export const sourcesText = (sources: readonly Source[]): string => sources.map((s) =>
  `Types: deb\nURIs: ${s.uris.join(" ")}\nSuites: ${s.suites.join(" ")}\nComponents: ${s.components.join(" ")}\n${s.signedBy ? `Signed-By: ${s.signedBy.includes("\n") ? "\n " : ""}${s.signedBy}\n` : ""}`).join("\n");
