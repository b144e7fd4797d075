import type { Engine, Screen } from "./engine";
import { surface } from "./picture";

/** Milliseconds over which frames are counted. */
const WINDOW = 1000;

/** Counts what happened within the last second. */
export class Rate {
  private readonly times: number[] = [];

  /** Note that it happened at `now`, in milliseconds; how often it does in a second. */
  add(now: number): number {
    this.times.push(now);
    // Of slow ones, the last two count.
    while (this.times.length > 2 && this.times[0]! <= now - WINDOW) this.times.shift();
    const span = now - this.times[0]!;
    return span > 0 ? ((this.times.length - 1) * 1000) / span : 0;
  }
}

/**
 * Shows each frame that a video presents, and the same frame enlarged.
 *
 * Frames that come while one is computed are skipped, except the last: after a pause or a seek the
 * right frame stands.
 */
export class Player {
  private readonly rate = new Rate();
  private readonly screen: Screen;
  private readonly taken: OffscreenCanvas;
  private handle = 0;
  private busy = false;
  private due = false;
  private closed = false;

  constructor(
    engine: Engine,
    private readonly video: HTMLVideoElement,
    private readonly before: HTMLCanvasElement,
    after: HTMLCanvasElement,
    private readonly shown: (perSecond: number) => void,
    private readonly failed: (error: unknown) => void,
  ) {
    const { videoWidth: width, videoHeight: height } = video;
    [before.width, before.height] = [width, height];
    this.taken = new OffscreenCanvas(width, height);
    this.screen = engine.screen(after, width, height);
    this.watch();
    // A video that stands still presents nothing new.
    video.addEventListener("pause", this.refresh);
    video.addEventListener("seeked", this.refresh);
    this.refresh();
  }

  close(): void {
    this.closed = true;
    this.video.removeEventListener("pause", this.refresh);
    this.video.removeEventListener("seeked", this.refresh);
    this.video.cancelVideoFrameCallback(this.handle);
    this.screen.close();
  }

  private readonly refresh = (): void => {
    this.due = true;
    void this.work();
  };

  private watch(): void {
    this.handle = this.video.requestVideoFrameCallback(() => {
      if (this.closed) return;
      this.watch();
      this.refresh();
    });
  }

  private async work(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.due && !this.closed) {
        this.due = false;
        surface(this.taken).drawImage(this.video, 0, 0, this.taken.width, this.taken.height);
        await this.screen.show(this.video);
        if (this.closed) break;
        surface(this.before).drawImage(this.taken, 0, 0);
        this.shown(this.rate.add(performance.now()));
      }
    } catch (error) {
      if (!this.closed) this.failed(error);
    } finally {
      this.busy = false;
    }
  }
}
