import { part } from "../compare";
import { offerPaste, takeFiles } from "../intake";
import { offerTheme } from "../theme";
import { about, forget, models, resultPlace, zipPlace, type About } from "./api";
import { Choices } from "./choices";
import { Item, wording } from "./item";
import { List } from "./list";
import { Queue } from "./queue";
import { Viewer } from "./viewer";
import { bytes, factsOf, percent, progressOf, sizeOf } from "./words";

/** Width of a window below which the result is below everything else. */
const NARROW = "(max-width: 800px)";

const go = part<HTMLButtonElement>(document, "#go");
const stop = part<HTMLButtonElement>(document, "#stop");
const zip = part<HTMLAnchorElement>(document, "#zip");
const card = part<HTMLElement>(document, "#card");
const said = part<HTMLElement>(document, "#said");
const viewer = new Viewer(part(document, "#viewer"));
const list = new List(part(document, "#files"), { pick, remove });
const queue = new Queue();

const items: Item[] = [];
let picked: Item | undefined;
let choices: Choices | undefined;
/** Files are opened one after the other: many large ones at once would take all memory. */
let opening = Promise.resolve();

offerTheme(part(document, "#theme"));
void start();

/** Everything else begins when the server has said what it offers. */
async function start(): Promise<void> {
  try {
    const [offer, rows] = await Promise.all([about(), models()]);
    choices = new Choices(part(document, "#choices"), offer, rows, showActs);
    setUp(offer);
    const take = (files: File[]) => add(files, offer);
    takeFiles(part(document, "#chooser"), take);
    offerPaste(part(document, "#paste"), take);
    document.body.dataset["ready"] = "";
  } catch (error) {
    showCard(document.createTextNode(wording(error)), "error");
  }
}

go.addEventListener("click", () => {
  for (const item of due()) queue.add(item, choices!.wishFor(item));
});
stop.addEventListener("click", () => items.forEach((item) => item.cancel()));
window.addEventListener("pagehide", (event) => {
  // A page that may be shown again keeps its results.
  if (!event.persisted) for (const { job } of items) if (job) forget(job.id);
});

/** What the button says: what it would do or, if that is nothing, what is being done. */
function actOf(waiting: readonly Item[]): string {
  if (waiting.length && waiting.every((item) => item.stage === "failed")) return "Try again";
  if (waiting.length) return waiting.length > 1 ? `Enlarge ${waiting.length} files` : "Enlarge";
  const running = items.find((item) => item.stage === "running");
  return running ? progressOf(running) : "Enlarge";
}

function setUp(offer: About): void {
  part<HTMLElement>(document, "#local").hidden = !offer.local;
  part<HTMLInputElement>(document, "#chooser").accept = offer.accept.join(",");
  part(document, "#reads").textContent =
    `${offer.reads.join(", ")}, video; up to ${Math.round(offer.upload_bytes / 1e6)} MB each`;
  const row = part<HTMLElement>(document, "#examples");
  row.hidden = offer.examples.length === 0;
  for (const name of offer.examples) {
    const button = document.createElement("button");
    const image = new Image();
    image.src = `page/${encodeURIComponent(name)}`;
    image.alt = `Example ${name}`;
    button.type = "button";
    button.append(image);
    button.addEventListener("click", async () => {
      const content = await (await fetch(image.src)).blob();
      add([new File([content], name, { type: content.type })], offer);
    });
    row.append(button);
  }
}

/** Take in files; the first of them is shown. */
function add(files: readonly File[], offer: About): void {
  const added = files.map((file) => {
    const suffix = /\.[^.]*$/.exec(file.name)?.[0].toLowerCase() ?? "";
    const isClip = offer.clips.includes(suffix);
    const item = new Item(file, isClip, changed);
    items.push(item);
    list.add(item);
    if (offer.accept.includes(suffix)) opening = opening.then(() => item.open(offer.upload_bytes));
    else item.set("refused", `This page cannot read it. It reads ${offer.reads.join(", ")} and video.`);
    return item;
  });
  if (added[0]) pick(added[0]);
}

/** The files that the present choices would change. */
function due(): Item[] {
  const wishOf = (item: Item) => JSON.stringify(choices?.wishFor(item));
  return items.filter(
    (item) =>
      !item.busy &&
      item.stage !== "opening" &&
      item.stage !== "refused" &&
      item.made?.wish !== wishOf(item),
  );
}

function pick(item: Item | undefined): void {
  picked = item;
  list.pick(item);
  show();
}

function remove(item: Item): void {
  const place = items.indexOf(item);
  items.splice(place, 1);
  item.close();
  list.remove(item);
  if (picked === item) pick(items[place] ?? items[place - 1]);
  show();
}

function changed(item: Item): void {
  list.update(item);
  if (item.stage === "failed" || item.stage === "refused")
    said.textContent = `${item.file.name}: ${item.message}`;
  if (item.stage === "done") {
    said.textContent = `${item.file.name} is enlarged`;
    // Whoever looks at another result goes on looking at it.
    if (picked !== item && picked?.stage !== "done") pick(item);
    if (picked === item) {
      show();
      void viewer.show(item).then(bringIntoView);
      return;
    }
  }
  show();
}

/** Show the state of everything. */
function show(): void {
  showActs();
  const done = items.filter((item) => item.stage === "done");
  document.body.dataset["files"] = items.length === 0 ? "none" : items.length === 1 ? "one" : "many";
  zip.hidden = done.length < 2;
  if (done.length > 1) {
    zip.href = zipPlace(done.map((item) => item.job!.id));
    const size = done.reduce((sum, item) => sum + (item.job!.bytes ?? 0), 0);
    zip.textContent = `Download ${done.length} as ZIP, ${bytes(size)}`;
  }
  showState(picked);
  void viewer.show(picked);
}

/** What can be chosen and done now. */
function showActs(): void {
  choices?.showFor(items);
  const waiting = due();
  go.disabled = waiting.length === 0;
  go.textContent = actOf(waiting);
  stop.hidden = !items.some((item) => item.busy);
}

/** The card above the picture. */
function showState(item: Item | undefined): void {
  if (!item) return showCard(undefined, "");
  const name = document.createElement("b");
  name.textContent = item.file.name;
  const { stage } = item;
  if (stage === "failed" || stage === "refused") {
    const text = document.createElement("span");
    text.textContent = item.message;
    return showCard([name, text], "error");
  }
  if (stage === "done") return showCard([facts(factsOf(item)), download(item)], "done");
  if (stage === "sending" || stage === "running") {
    const bar = document.createElement("progress");
    bar.value = item.share;
    bar.setAttribute("aria-label", "Share done");
    const text = document.createElement("span");
    text.className = "number";
    text.textContent = stage === "sending" ? percent(item.share) : progressOf(item);
    const what = document.createElement("span");
    what.textContent = stage === "sending" ? "Sending" : "Enlarging";
    return showCard([what, bar, text], stage);
  }
  const text = { opening: "Opening …", ready: sizeOf(item), waiting: "Waiting", queued: "Waiting" }[stage];
  return showCard([name, document.createTextNode(item.message || text)], stage);
}

function facts(texts: readonly string[]): HTMLElement {
  const row = document.createElement("div");
  row.className = "facts";
  for (const text of texts) {
    const one = document.createElement("span");
    one.textContent = text;
    row.append(one);
  }
  return row;
}

function download(item: Item): HTMLElement {
  const link = document.createElement("a");
  link.id = "download";
  link.className = "button main";
  link.href = resultPlace(item.job!.id);
  link.download = "";
  link.textContent = `Download ${bytes(item.job!.bytes ?? 0)}`;
  return link;
}

function showCard(content: Node | readonly Node[] | undefined, kind: string): void {
  card.hidden = content === undefined;
  card.dataset["kind"] = kind;
  if (kind === "error") card.setAttribute("role", "alert");
  else card.removeAttribute("role");
  const nodes = content instanceof Node ? [content] : (content ?? []);
  // What is the same stays, so that nothing is told, or loses the focus, twice.
  const next = document.createElement("div");
  next.append(...nodes);
  if (next.innerHTML !== card.innerHTML) card.replaceChildren(...next.childNodes);
}

function bringIntoView(): void {
  if (!matchMedia(NARROW).matches) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  part(document, "#result").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}
