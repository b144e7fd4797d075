import type { Engine } from "./engine";
import { stretches } from "./tiles";

/** Pixels of the largest result: what a browser's canvas and memory hold. */
const MOST_PIXELS = 100e6;
/** Longest side of a canvas that all browsers have. */
const LONGEST_SIDE = 16384;

/** Open a picture file, upright, in sRGB. */
export async function openPicture(file: Blob): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error("The browser cannot open this file as a picture. Try a PNG, JPEG or WebP file.");
  }
}

/** Say why a picture or clip cannot be enlarged, if so. */
export function refusal(width: number, height: number, scale: number): string | undefined {
  const fits =
    width * height * scale ** 2 <= MOST_PIXELS && Math.max(width, height) * scale <= LONGEST_SIDE;
  if (fits) return undefined;
  return (
    `The result would have ${width * scale} × ${height * scale} pixels, ` +
    "too many for a browser. Use the paragonsr2 command."
  );
}

/**
 * What draws on a canvas.
 *
 * @param read whether its pixels are read back, for which it is kept off the graphics card.
 */
export function surface(canvas: HTMLCanvasElement | OffscreenCanvas, read = false) {
  const found = canvas.getContext("2d", { willReadFrequently: read });
  if (!found) throw new Error("The browser has no memory for this picture.");
  return found as CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;
}

/**
 * Enlarge a picture in parts, each shown as soon as it is there.
 *
 * @param canvas takes the result; its size is set here.
 * @param progress is told the share that is done, 0..1.
 * @param signal stops the work.
 */
export async function enlargePicture(
  engine: Engine,
  picture: ImageBitmap,
  canvas: HTMLCanvasElement,
  progress: (share: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const { scale, reach } = engine.model;
  const { width, height } = picture;
  const source = surface(new OffscreenCanvas(width, height), true);
  source.drawImage(picture, 0, 0);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const target = surface(canvas);
  const rows = stretches(height, engine.longest, reach);
  const columns = stretches(width, engine.longest, reach);
  let done = 0;
  for (const row of rows) {
    for (const column of columns) {
      signal.throwIfAborted();
      const part = source.getImageData(column.from, row.from, column.size, row.size);
      const large = await enlargeWithAlpha(engine, part);
      signal.throwIfAborted();
      target.putImageData(
        large,
        column.from * scale,
        row.from * scale,
        (column.keepFrom - column.from) * scale,
        (row.keepFrom - row.from) * scale,
        column.keepSize * scale,
        row.keepSize * scale,
      );
      progress(++done / (rows.length * columns.length));
    }
  }
}

/** Enlarge colours, and alpha as a grey picture. */
async function enlargeWithAlpha(engine: Engine, part: ImageData): Promise<ImageData> {
  const pixels = part.data;
  const mask = new ImageData(part.width, part.height);
  let clear = false;
  for (let at = 0; at < pixels.length; at += 4) {
    const alpha = pixels[at + 3] ?? 255;
    clear ||= alpha !== 255;
    mask.data.fill(alpha, at, at + 3);
  }
  const large = await engine.enlarge(part);
  if (!clear) return large;
  const alphas = (await engine.enlarge(mask)).data;
  for (let at = 0; at < alphas.length; at += 4) large.data[at + 3] = alphas[at] ?? 255;
  return large;
}
