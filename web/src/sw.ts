// Keeps the page for use without a network, and isolates it, so that it may use several threads.
/// <reference lib="webworker" />
export {};

// `paragonsr2 web` puts the digest of all files here, so that a new page replaces this one.
const VERSION = "paragonsr2-@VERSION@";

const worker = self as unknown as ServiceWorkerGlobalScope;

worker.addEventListener("install", (event) => {
  const keep = async () => {
    const files = (await (await fetch("files.json", { cache: "reload" })).json()) as string[];
    const cache = await caches.open(VERSION);
    await cache.addAll(files.map((name) => new Request(name, { cache: "reload" })));
    await worker.skipWaiting();
  };
  event.waitUntil(keep());
});

worker.addEventListener("activate", (event) => {
  const take = async () => {
    // Other pages of the same address keep what is theirs.
    const old = (await caches.keys()).filter((n) => n.startsWith("paragonsr2-") && n !== VERSION);
    await Promise.all(old.map((name) => caches.delete(name)));
    await worker.clients.claim();
  };
  event.waitUntil(take());
});

worker.addEventListener("fetch", (event) => {
  const here = new URL(event.request.url).origin === worker.location.origin;
  if (!here) event.respondWith(Response.error());
  else if (event.request.method === "GET") event.respondWith(answer(event.request));
});

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(VERSION);
  const found = (await cache.match(request, { ignoreSearch: true })) ?? (await fetch(request));
  if (found.status === 0) return found;
  const headers = new Headers(found.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}
