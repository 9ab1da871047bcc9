/** A service worker for hosts that cannot set headers: it gives every answer the two that make the page cross-origin isolated. It keeps nothing. */
type Scope = { skipWaiting(): Promise<void>; readonly clients: { claim(): Promise<void> }; addEventListener(type: string, told: (e: { readonly request: Request; waitUntil(p: Promise<unknown>): void; respondWith(p: Promise<Response>): void }) => void): void };
const scope = globalThis as unknown as Scope;

scope.addEventListener("install", (e) => e.waitUntil(scope.skipWaiting()));
scope.addEventListener("activate", (e) => e.waitUntil(scope.clients.claim()));
scope.addEventListener("fetch", (e) => {
  const { request } = e;
  if (new URL(request.url).origin !== location.origin || (request.cache === "only-if-cached" && request.mode !== "same-origin")) return;
  e.respondWith(fetch(request).then((answer) => {
    if (answer.status === 0) return answer;
    const headers = new Headers(answer.headers);
    headers.set("Cross-Origin-Opener-Policy", "same-origin");
    headers.set("Cross-Origin-Embedder-Policy", "require-corp");
    headers.set("Cross-Origin-Resource-Policy", "same-origin");
    return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
  }));
});
