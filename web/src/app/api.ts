/** What the page may do, from its server. */
export interface About {
  readonly local: boolean;
  readonly upload_bytes: number;
  readonly accept: readonly string[];
  readonly clips: readonly string[];
  readonly reads: readonly string[];
  readonly formats: Readonly<Record<string, string>>;
  readonly codecs: readonly string[];
  readonly picture_quality: number;
  readonly clip_quality: number;
  readonly examples: readonly string[];
}

/** A model at one scale. */
export interface ModelRow {
  readonly model: string;
  readonly scale: number;
  readonly purpose: string;
  /** What people call it; of models for one purpose. */
  readonly word?: string | null;
  /** Whether it can be mixed with the faithful model of its variant. */
  readonly dial?: boolean;
  readonly kmacs_per_pixel?: number;
}

/** Where a job is; of a job that is done, what its result is. */
export interface Job {
  readonly id: string;
  readonly state: "queued" | "running" | "done" | "failed" | "cancelled";
  readonly share: number;
  /** Seconds that it has probably left. */
  readonly left: number | null;
  readonly message: string;
  readonly width: number;
  readonly height: number;
  readonly pages: number;
  readonly frames: number;
  readonly seconds: number;
  readonly backend: string;
  readonly bytes: number | null;
}

/** A refusal of the server, in words for the visitor. */
export class Refusal extends Error {
  constructor(
    message: string,
    /** Status of the answer; 0 if there was none. */
    readonly status: number,
    /** Seconds after which the same may succeed; undefined if it never will. */
    readonly later?: number,
  ) {
    super(message);
  }
}

export async function about(): Promise<About> {
  return (await answer(await ask("page/about.json"))).json();
}

export async function models(): Promise<readonly ModelRow[]> {
  return (await (await answer(await ask("v1/models"))).json()).models;
}

export async function jobOf(id: string, signal: AbortSignal): Promise<Job> {
  return (await answer(await ask(`v1/jobs/${id}`, { signal }))).json();
}

/** Whether the server answers at all. */
export async function isAlive(): Promise<boolean> {
  return fetch("healthz").then(
    (given) => given.ok,
    () => false,
  );
}

/** Forget a job and its files, even while the page is being closed. */
export function forget(id: string): void {
  void fetch(`v1/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => undefined);
}

/** What any browser can show of a file. */
export async function previewOf(file: File): Promise<Blob> {
  const place = `v1/preview?${new URLSearchParams({ name: file.name })}`;
  return (await answer(await ask(place, { method: "POST", body: file }))).blob();
}

/** What any browser can show of a result. */
export async function previewOfResult(id: string): Promise<Blob> {
  return (await answer(await ask(`v1/jobs/${id}/preview`))).blob();
}

export function resultPlace(id: string): string {
  return `v1/jobs/${id}/result`;
}

/** All of these results in one file. */
export function zipPlace(ids: readonly string[]): string {
  return `v1/results?${new URLSearchParams(ids.map((id) => ["id", id]))}`;
}

/**
 * Send a file, and start a job on it.
 *
 * @param options of the job; see the description of the service.
 * @param progress is told the share that was sent, 0..1.
 */
export function startJob(
  file: File,
  options: Readonly<Record<string, string>>,
  progress: (share: number) => void,
  signal: AbortSignal,
): Promise<Job> {
  // fetch does not tell how much of a body was sent.
  const request = new XMLHttpRequest();
  request.open("POST", `v1/jobs?${new URLSearchParams({ name: file.name, ...options })}`);
  request.upload.onprogress = (event) => progress(event.loaded / Math.max(event.total, 1));
  return new Promise((resolve, reject) => {
    const stop = () => request.abort();
    request.onload = () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText) as Job);
      else reject(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(signal.reason);
    request.onloadend = () => signal.removeEventListener("abort", stop);
    signal.throwIfAborted();
    signal.addEventListener("abort", stop);
    request.send(file);
  });
}

async function ask(place: string, options?: RequestInit): Promise<Response> {
  try {
    return await fetch(place, options);
  } catch (error) {
    options?.signal?.throwIfAborted();
    console.warn(error);
    throw unreachable();
  }
}

async function answer(given: Response): Promise<Response> {
  if (given.ok) return given;
  throw refusal(given.status, await given.text(), given.headers.get("Retry-After"));
}

function unreachable(): Refusal {
  return new Refusal("The server cannot be reached; is it still running?", 0, 1);
}

function refusal(status: number, text: string, later: string | null): Refusal {
  let message = text;
  try {
    message = (JSON.parse(text) as { error?: string }).error ?? text;
  } catch {
    // It is no JSON, as a proxy's answer may be.
  }
  return new Refusal(
    sentence(message || `The server answered with status ${status}`),
    status,
    later === null ? undefined : Number(later),
  );
}

/** With a capital and a full stop. */
export function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
}
