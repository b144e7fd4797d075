import type { Item } from "./item";

/** What a row of the list says about its file. */
export function stateOf(item: Item): string {
  const size = sizeOf(item);
  switch (item.stage) {
    case "opening":
      return "Opening …";
    case "ready":
      return size;
    case "waiting":
      return "Waiting";
    case "sending":
      return `Sending, ${percent(item.share)}`;
    case "queued":
      return "Waiting for the server";
    case "running":
      return progressOf(item);
    case "done":
      return `${item.job!.width} × ${item.job!.height}, ${bytes(item.job!.bytes ?? 0)}`;
    case "failed":
    case "refused":
      return item.message;
  }
}

/** How far a file is that is being enlarged. */
export function progressOf(item: Item): string {
  return `${percent(item.share)}${item.left === null ? "" : `, ${leftOf(item.left)}`}`;
}

/** Time left, in round words: an estimate is no clock. */
export function leftOf(seconds: number): string {
  if (seconds < 1.5) return "a moment left";
  if (seconds < 10) return `${Math.round(seconds)} s left`;
  if (seconds < 90) return `about ${Math.round(seconds / 5) * 5} s left`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min left`;
  return `about ${Math.round(seconds / 3600)} h left`;
}

/** What the result is, one fact each. */
export function factsOf(item: Item): string[] {
  const job = item.job;
  if (item.stage !== "done" || !job || !item.made) return [];
  const { scale } = item.made;
  const pixels = (job.width * job.height * job.pages * Math.max(job.frames, 1)) / 1e6;
  const rate = pixels / Math.max(job.seconds, 1e-6);
  return [
    `${job.width / scale} × ${job.height / scale} → ${job.width} × ${job.height}${countOf(item)}`,
    seconds(job.seconds),
    `${pixels.toFixed(1)} megapixels, ${rate.toFixed(1)} a second`,
    job.backend,
    ...(item.message ? [item.message] : []),
  ];
}

export function sizeOf(item: Item): string {
  const { source } = item;
  // A preview may be smaller than what it stands for.
  return source && !source.isPreview ? `${source.width} × ${source.height}` : bytes(item.file.size);
}

export function percent(share: number): string {
  return `${Math.floor(100 * share)} %`;
}

export function bytes(count: number): string {
  // No line ends between a number and its unit.
  if (count < 1e6) return `${Math.ceil(count / 1e3)}\u00a0kB`;
  return count < 1e9 ? `${(count / 1e6).toFixed(1)}\u00a0MB` : `${(count / 1e9).toFixed(2)}\u00a0GB`;
}

function seconds(count: number): string {
  return count < 10 ? `${count.toFixed(2)} s` : `${Math.round(count)} s`;
}

function countOf(item: Item): string {
  const { pages, frames } = item.job!;
  if (frames) return `, ${frames} frames`;
  return pages > 1 ? `, ${pages} pages` : "";
}
