/** Seconds apart from which one clip jumps to the other; below, it runs faster or slower. */
const JUMP = 0.25;
/** Share by which it may run faster or slower. */
const HURRY = 0.15;
/** Seconds apart that two clips that stand may be: less than a frame. */
const NEAR = 0.01;

/** Plays a clip before and after together: the second leads, the first follows. */
export class Pair {
  private readonly ears = new AbortController();
  private handle = 0;

  /**
   * @param shown is called when the leading clip shows another frame.
   */
  constructor(
    private readonly before: HTMLVideoElement,
    private readonly after: HTMLVideoElement,
    private readonly shown: () => void,
  ) {
    this.on(after, "play", () => void before.play().catch(() => undefined));
    this.on(after, "pause", () => {
      before.pause();
      this.meet();
    });
    this.on(after, "seeking", () => this.meet());
    // A clip may go on a little after it was paused.
    this.on(after, "timeupdate", () => this.settle());
    this.on(before, "seeked", () => this.settle());
    this.on(before, "seeked", shown);
    this.on(after, "seeked", shown);
    this.meet();
    this.watch();
  }

  close(): void {
    this.ears.abort();
    this.after.cancelVideoFrameCallback?.(this.handle);
    this.before.pause();
    this.after.pause();
  }

  private watch(): void {
    const next = () => {
      this.follow();
      this.settle();
      this.shown();
      if (!this.ears.signal.aborted) this.watch();
    };
    if ("requestVideoFrameCallback" in this.after)
      this.handle = this.after.requestVideoFrameCallback(next);
    else setTimeout(next, 100);
  }

  private follow(): void {
    if (this.after.paused || this.before.seeking) return;
    const late = this.after.currentTime - this.before.currentTime;
    if (Math.abs(late) > JUMP) this.meet();
    else this.before.playbackRate = 1 + Math.min(Math.max(late, -HURRY), HURRY);
  }

  private settle(): void {
    const apart = Math.abs(this.after.currentTime - this.before.currentTime);
    if (this.after.paused && !this.before.seeking && apart > NEAR) this.meet();
  }

  private meet(): void {
    this.before.currentTime = this.after.currentTime;
  }

  private on(video: HTMLVideoElement, kind: string, act: () => void): void {
    video.addEventListener(kind, act, { signal: this.ears.signal });
  }
}
