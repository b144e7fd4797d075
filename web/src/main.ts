import { Compare, part } from "./compare";
import { controlClips } from "./controls";
import type { Engine } from "./engine";
import { takeFiles } from "./intake";
import { loadModels } from "./models";
import { enlargePicture, openPicture, refusal } from "./picture";
import { offerTheme } from "./theme";
import { Player } from "./video";
import { WasmEngine } from "./wasm";
import { WebGpuEngine } from "./webgpu";

type State = "empty" | "working" | "done" | "playing" | "failed";
type Place = "gpu" | "cpu";

/** What the visitor gave. */
type Given =
  | { readonly kind: "picture"; readonly name: string; readonly url: string; bitmap: ImageBitmap }
  | { readonly kind: "clip"; readonly name: string; readonly url: string; video: HTMLVideoElement };

const chooser = part<HTMLInputElement>(document, "#chooser");
const status = part<HTMLElement>(document, "#status");
const bar = part<HTMLProgressElement>(document, "#progress");
const download = part<HTMLButtonElement>(document, "#download");
const zoom = part<HTMLButtonElement>(document, "#zoom");
const compare = new Compare(part(document, "#compare"));

const models = loadModels();
let given: Given | undefined;
let engine: { readonly wanted: string; readonly opened: Promise<Engine> } | undefined;
let player: Player | undefined;
let result: HTMLCanvasElement | undefined;
let job = new AbortController();

function setState(state: State, text: string): void {
  document.body.dataset["state"] = state;
  status.textContent = text;
}

function fail(error: unknown): void {
  // A graphics card that was lost, or a worker that ended, is of no more use.
  closeEngine();
  setState("failed", error instanceof Error ? error.message : String(error));
}

function chosen(name: string): string {
  return part<HTMLInputElement>(document, `input[name=${name}]:checked`).value;
}

/** The engine that the visitor chose. The one before is closed, whatever it does. */
function openEngine(): Promise<Engine> {
  const wanted = `${chosen("place")} ${chosen("scale")}`;
  if (engine?.wanted !== wanted) {
    closeEngine();
    engine = { wanted, opened: makeEngine(chosen("place") as Place, Number(chosen("scale"))) };
  }
  return engine.opened;
}

function closeEngine(): void {
  engine?.opened.then((one) => one.close()).catch(() => undefined);
  engine = undefined;
}

/** Open an engine: the processor where the graphics card fails. */
async function makeEngine(place: Place, scale: number): Promise<Engine> {
  const model = (await models).find((one) => one.scale === scale);
  if (!model) throw new Error(`The page has no model for ×${scale}.`);
  if (place === "gpu") {
    const opened = await WebGpuEngine.open(model).catch((error: unknown) => console.warn(error));
    if (opened) return opened;
  }
  return WasmEngine.open(model);
}

/** Take in a file; what was there before goes. */
async function open(file: File): Promise<void> {
  stop();
  compare.clear();
  release();
  setState("working", "Opening …");
  bar.removeAttribute("value");
  document.body.dataset["kind"] = "";
  const mine = job.signal;
  const url = URL.createObjectURL(file);
  try {
    const isClip = file.type.startsWith("video/") || /\.(mp4|m4v|mov|webm|mkv)$/i.test(file.name);
    const found: Given = isClip
      ? { kind: "clip", name: file.name, url, video: await openClip(url) }
      : { kind: "picture", name: file.name, url, bitmap: await openPicture(file) };
    if (mine.aborted) return;
    given = found;
    document.body.dataset["kind"] = found.kind;
    await start();
  } catch (error) {
    if (!mine.aborted) fail(error);
  }
}

async function openClip(url: string): Promise<HTMLVideoElement> {
  const video = document.createElement("video");
  if (!("requestVideoFrameCallback" in video))
    throw new Error("This browser does not hand out the frames of clips. A newer one does.");
  video.playsInline = true;
  video.loop = true;
  video.preload = "auto";
  return new Promise((resolve, reject) => {
    video.onloadeddata = () => {
      if (video.videoWidth) resolve(video);
      else reject(new Error("This file has no picture that the browser can show."));
    };
    video.onerror = () => reject(new Error("The browser cannot play this clip. Try MP4 or WebM."));
    video.src = url;
  });
}

/** Stop what is being computed or played. */
function stop(): void {
  job.abort();
  job = new AbortController();
  player?.close();
  player = undefined;
  if (given?.kind === "clip") given.video.pause();
}

function release(): void {
  if (!given) return;
  if (given.kind === "picture") given.bitmap.close();
  else given.video.removeAttribute("src");
  URL.revokeObjectURL(given.url);
  given = undefined;
}

/** Enlarge what was given, as chosen. */
async function start(): Promise<void> {
  if (!given) return;
  stop();
  const { signal } = job;
  const one = given;
  setState("working", "Getting ready …");
  bar.removeAttribute("value");
  try {
    const [width, height] =
      one.kind === "picture"
        ? [one.bitmap.width, one.bitmap.height]
        : [one.video.videoWidth, one.video.videoHeight];
    const scale = Number(chosen("scale"));
    const refused = refusal(width, height, scale);
    if (refused) throw new Error(refused);
    const opened = await openEngine();
    if (signal.aborted) return;
    const canvas = document.createElement("canvas");
    result = canvas;
    const size = `${width} × ${height} → ${width * scale} × ${height * scale}`;
    if (one.kind === "picture") {
      const before = new Image();
      before.src = one.url;
      before.alt = "";
      await before.decode();
      compare.put(before, canvas, width * scale, height * scale);
      const begun = performance.now();
      setState("working", size);
      await enlargePicture(opened, one.bitmap, canvas, (share) => (bar.value = share), signal);
      const seconds = ((performance.now() - begun) / 1000).toFixed(1);
      setState("done", `${size}, ${seconds} s on the ${opened.label}`);
    } else {
      const before = document.createElement("canvas");
      compare.put(before, canvas, width * scale, height * scale);
      let frames = 0;
      const shown = (perSecond: number) => {
        document.body.dataset["frames"] = String(++frames);
        const rate = `${perSecond.toFixed(perSecond < 10 ? 1 : 0)} frames a second`;
        setState("playing", `${size}, ${one.video.paused ? "" : `${rate} `}on the ${opened.label}`);
      };
      player = new Player(opened, one.video, before, canvas, shown, fail);
      // Some browsers play only on a press; the button is there.
      await one.video.play().catch(() => undefined);
    }
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function save(): void {
  const name = given?.name.replace(/\.[^.]*$/, "") || "picture";
  result?.toBlob((blob) => {
    if (!blob) return fail(new Error("The browser has no memory to write this picture."));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}_x${chosen("scale")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }, "image/png");
}

function listen(): void {
  takeFiles(chooser, ([first]) => {
    if (first) void open(first);
  });
  for (const option of document.querySelectorAll("input[name=scale], input[name=place]"))
    option.addEventListener("change", () => void start());
  download.addEventListener("click", save);
  zoom.addEventListener("click", () => {
    compare.actual = !compare.actual;
    zoom.setAttribute("aria-pressed", String(compare.actual));
  });
}

/** Offer the graphics card where there is one, and choose it unless the processor plays its part. */
async function offerPlaces(): Promise<void> {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return;
  part<HTMLElement>(document, "#places").hidden = false;
  if (!adapter.info.isFallbackAdapter)
    part<HTMLInputElement>(document, "input[name=place][value=gpu]").checked = true;
}

/** Keep the page for use offline. From then on it is isolated, so that it may use threads. */
async function install(): Promise<void> {
  if (!("serviceWorker" in navigator)) return;
  const first = !navigator.serviceWorker.controller;
  await navigator.serviceWorker.register("sw.js");
  await navigator.serviceWorker.ready;
  const idle = document.body.dataset["state"] === "empty";
  if (first && !self.crossOriginIsolated && idle) location.reload();
  else document.body.dataset["offline"] = "ready";
}

offerTheme(part(document, "#theme"));
listen();
controlClips(part(document, ".clip"), () => (given?.kind === "clip" ? given.video : undefined));
void offerPlaces();
void install().catch((error: unknown) => console.warn(error));
