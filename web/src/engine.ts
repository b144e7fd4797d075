import type { Model } from "./models";

/** A surface that shows enlarged frames. */
export interface Screen {
  /** Enlarge the frame that the video shows at the call, and show it. */
  show(video: HTMLVideoElement): Promise<void>;
  close(): void;
}

/** What computes a network. */
export interface Engine {
  /** For the visitor, such as "graphics card". */
  readonly label: string;
  readonly model: Model;
  /** Longest side of a part of a picture, in pixels, that it takes at once. */
  readonly longest: number;
  /** Enlarge the colours of a picture; alpha becomes 255. */
  enlarge(picture: ImageData): Promise<ImageData>;
  /** Begin to show enlarged frames of one size. */
  screen(canvas: HTMLCanvasElement, width: number, height: number): Screen;
  close(): void;
}
