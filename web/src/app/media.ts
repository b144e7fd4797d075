import type { Drawable } from "../loupe";
import { previewOf, previewOfResult, resultPlace, type Job } from "./api";

/** Pixels of the largest picture that the browser is given as it is. */
const MOST_PIXELS = 64e6;

/** A picture or clip as the browser shows it. */
export interface Media extends Drawable {
  /** A frame or page that stands for what this browser cannot show. */
  readonly isPreview: boolean;
}

/**
 * Open a visitor's file; what this browser cannot show, the server turns into a picture.
 *
 * @param url of the file.
 */
export async function openFile(file: File, isClip: boolean, url: string): Promise<Media> {
  try {
    return await (isClip ? openClip(url) : openPicture(url));
  } catch {
    return openStill(file);
  }
}

/** A picture of a file: of a clip, the frame that also stands for its result. */
export async function openStill(file: File): Promise<Media> {
  return openPreview(await previewOf(file));
}

/** Open the result of a job, likewise. */
export async function openResult(job: Job): Promise<Media> {
  const place = resultPlace(job.id);
  try {
    if (job.frames) return await openClip(place);
    if (job.width * job.height <= MOST_PIXELS) return await openPicture(place);
  } catch {
    // This browser has no decoder for it.
  }
  return openPreview(await previewOfResult(job.id));
}

export function isVideo(media: Media | undefined): media is Media & { image: HTMLVideoElement } {
  return media?.image instanceof HTMLVideoElement;
}

/** A small copy, for a list. */
export function thumbnail(media: Media, side: number): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  const edge = Math.min(media.width, media.height);
  canvas.width = canvas.height = side;
  canvas
    .getContext("2d")
    ?.drawImage(
      media.image,
      (media.width - edge) / 2,
      (media.height - edge) / 2,
      edge,
      edge,
      0,
      0,
      side,
      side,
    );
  return canvas;
}

async function openPicture(url: string, isPreview = false): Promise<Media> {
  const image = new Image();
  image.src = url;
  image.alt = "";
  image.draggable = false;
  await image.decode();
  return { image, width: image.naturalWidth, height: image.naturalHeight, isPreview };
}

async function openPreview(content: Blob): Promise<Media> {
  const url = URL.createObjectURL(content);
  try {
    return await openPicture(url, true);
  } finally {
    URL.revokeObjectURL(url); // it is decoded
  }
}

function openClip(url: string): Promise<Media> {
  const image = document.createElement("video");
  image.muted = image.playsInline = image.loop = true;
  image.preload = "auto";
  return new Promise((resolve, reject) => {
    image.onloadeddata = () => {
      const { videoWidth: width, videoHeight: height } = image;
      if (width) resolve({ image, width, height, isPreview: false });
      else reject(new Error("it has no picture"));
    };
    image.onerror = () => reject(new Error("it cannot be played"));
    image.src = url;
  });
}
