/** Shared memory needs a cross-origin isolated page. Where its host sends no such headers, a service worker of the page's own adds them. */

/** How often this tab was loaded again for it, since it last had it. */
const TRIED = "domus.isolated";

/** @returns null when the page has what it needs (or is being loaded again), or a sentence that says what is missing */
export async function ensureIsolation(): Promise<string | null> {
  if (typeof WebAssembly !== "object") return "This browser has no WebAssembly.";
  if (globalThis.crossOriginIsolated && typeof SharedArrayBuffer === "function") {
    try { sessionStorage.removeItem(TRIED); } catch { /* a browser may refuse */ }
    return null;
  }
  if (!globalThis.isSecureContext) return "This page has no shared memory, because it was not loaded over https or from localhost. Load it so.";
  if (!("serviceWorker" in navigator)) return "This page has no shared memory: its host does not send Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp, and this browser has no service workers that could add them (some have none in private windows).";
  try {
    await navigator.serviceWorker.register(new URL("sw.js", document.baseURI), { scope: "./" });
    await navigator.serviceWorker.ready;
  } catch (e) {
    return `This page has no shared memory: its host does not send Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy, and the service worker that adds them could not be started (${(e as Error).message}).`;
  }
  const tried = Number(sessionStorage.getItem(TRIED) ?? 0);
  if (tried >= 2) return "This page has no shared memory, although its service worker adds the headers for it. This browser does not support cross-origin isolation; a current Chromium or Firefox does.";
  sessionStorage.setItem(TRIED, String(tried + 1));
  location.reload();
  return new Promise<never>(() => {});
}
