import { part } from "./compare";

/** Something that can be drawn, and its size in pixels. */
export interface Drawable {
  readonly image: HTMLImageElement | HTMLVideoElement;
  readonly width: number;
  readonly height: number;
}

/** Where the crop begins: beside the line, which begins in the middle. */
const START = { x: 0.68, y: 0.5 };
/** How far an arrow key moves the crop, as a share of the picture. */
const STEP = 0.02;

/**
 * Shows the same crop of two pictures or clips side by side, enlarged.
 *
 * @param root holds two canvases in `.panes`, buttons with `data-zoom`, and `.pixels`.
 * @param outline marks the crop in the whole picture.
 */
export class Loupe {
  private readonly panes: HTMLCanvasElement[];
  private readonly zooms: HTMLButtonElement[];
  private readonly pixels: HTMLButtonElement;
  private pair: readonly [Drawable, Drawable] | undefined;
  private centre = { ...START };
  private zoom = 2;
  private smooth = true;

  constructor(
    private readonly root: HTMLElement,
    private readonly outline: HTMLElement,
  ) {
    this.panes = [...root.querySelectorAll<HTMLCanvasElement>(".panes canvas")];
    this.zooms = [...root.querySelectorAll<HTMLButtonElement>("[data-zoom]")];
    this.pixels = part(root, ".pixels");
    for (const pane of this.panes) this.listen(pane);
    for (const button of this.zooms)
      button.addEventListener("click", () => {
        this.zoom = Number(button.dataset["zoom"]);
        this.draw();
      });
    this.pixels.addEventListener("click", () => {
      this.smooth = !this.smooth;
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(root);
  }

  /** Show two of equal shape; the second has the pixels that are shown one to one at zoom 1. */
  show(before: Drawable, after: Drawable): void {
    this.pair = [before, after];
    this.centre = { ...START };
    this.root.hidden = this.outline.hidden = false;
    this.draw();
  }

  hide(): void {
    this.pair = undefined;
    this.root.hidden = this.outline.hidden = true;
  }

  /** Put the middle of the crop at a place, 0..1 each way. */
  look(x: number, y: number): void {
    this.centre = { x, y };
    this.draw();
  }

  /** Draw the crop; of a clip, the frame that it shows. */
  draw(): void {
    const pane = this.panes[0];
    if (!this.pair || !pane?.clientWidth) return;
    const density = window.devicePixelRatio || 1;
    const whole = {
      width: (this.pair[1].width / density) * this.zoom,
      height: (this.pair[1].height / density) * this.zoom,
    };
    // The share of the picture that a pane shows, kept inside the picture.
    const width = Math.min(1, pane.clientWidth / whole.width);
    const height = Math.min(1, pane.clientHeight / whole.height);
    const within = (at: number, size: number) => Math.min(1 - size / 2, Math.max(size / 2, at));
    this.centre = { x: within(this.centre.x, width), y: within(this.centre.y, height) };
    const crop = { x: this.centre.x - width / 2, y: this.centre.y - height / 2, width, height };
    const { style } = this.outline;
    style.left = `${crop.x * 100}%`;
    style.top = `${crop.y * 100}%`;
    style.width = `${width * 100}%`;
    style.height = `${height * 100}%`;
    this.pair.forEach((one, number) => {
      const canvas = this.panes[number];
      if (canvas) paint(canvas, one, crop, whole, density, this.smooth);
    });
    for (const button of this.zooms)
      button.setAttribute("aria-pressed", String(Number(button.dataset["zoom"]) === this.zoom));
    this.pixels.setAttribute("aria-pressed", String(!this.smooth));
  }

  private listen(pane: HTMLCanvasElement): void {
    const move = (x: number, y: number) => this.look(this.centre.x + x, this.centre.y + y);
    pane.addEventListener("pointerdown", (start) => {
      if (start.button !== 0) return;
      pane.setPointerCapture(start.pointerId);
      const ears = new AbortController();
      let last = start;
      const on = (type: "pointermove" | "pointerup" | "pointercancel", act: (e: PointerEvent) => void) =>
        pane.addEventListener(type, act, { signal: ears.signal });
      on("pointermove", (event) => {
        const { width, height } = this.pair?.[1] ?? { width: 1, height: 1 };
        const size = (window.devicePixelRatio || 1) / this.zoom;
        move(
          ((last.clientX - event.clientX) * size) / width,
          ((last.clientY - event.clientY) * size) / height,
        );
        last = event;
      });
      on("pointerup", () => ears.abort());
      on("pointercancel", () => ears.abort());
    });
    pane.addEventListener("keydown", (event) => {
      const [x, y] =
        { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
      if (x === undefined || y === undefined) return;
      event.preventDefault();
      move(x * STEP, y * STEP);
    });
  }
}

interface Crop {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Draw a crop, 0..1 of the picture, in the middle of a canvas. */
function paint(
  canvas: HTMLCanvasElement,
  one: Drawable,
  crop: Crop,
  whole: { readonly width: number; readonly height: number },
  density: number,
  smooth: boolean,
): void {
  canvas.width = Math.round(canvas.clientWidth * density);
  canvas.height = Math.round(canvas.clientHeight * density);
  const width = crop.width * whole.width * density;
  const height = crop.height * whole.height * density;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(
    one.image,
    crop.x * one.width,
    crop.y * one.height,
    crop.width * one.width,
    crop.height * one.height,
    (canvas.width - width) / 2,
    (canvas.height - height) / 2,
    width,
    height,
  );
}
