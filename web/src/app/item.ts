import { forget, Refusal, sentence, type Job } from "./api";
import { openFile, thumbnail, type Media } from "./media";

/** What becomes of a file. `refused` is one that nobody can open. */
export type Stage =
  | "opening"
  | "ready"
  | "waiting"
  | "sending"
  | "queued"
  | "running"
  | "done"
  | "failed"
  | "refused";

const BUSY: readonly Stage[] = ["waiting", "sending", "queued", "running"];
/** Side of a thumbnail, in pixels of a dense screen. */
const THUMBNAIL = 112;

let counted = 0;

/** One file of the visitor's, and its result. */
export class Item {
  readonly key = `item${++counted}`;
  readonly url: string;
  stage: Stage = "opening";
  /** Why it failed, or what its result has lost. */
  message = "";
  /** Of the file that was sent, or of the result that is computed, 0..1. */
  share = 0;
  left: number | null = null;
  source: Media | undefined;
  thumbnail: HTMLCanvasElement | undefined;
  /** The job that made the result, and what was asked of it. */
  job: Job | undefined;
  made: { readonly wish: string; readonly scale: number } | undefined;
  private stopper = new AbortController();

  constructor(
    readonly file: File,
    readonly isClip: boolean,
    private readonly changed: (item: Item) => void,
  ) {
    this.url = URL.createObjectURL(file);
  }

  get busy(): boolean {
    return BUSY.includes(this.stage);
  }

  get signal(): AbortSignal {
    return this.stopper.signal;
  }

  set(stage: Stage, message = ""): void {
    [this.stage, this.message] = [stage, message];
    this.changed(this);
  }

  /** Show the file, if anything can. */
  async open(mostBytes: number): Promise<void> {
    const { size } = this.file;
    if (size > mostBytes) {
      const most = Math.round(mostBytes / 1e6);
      this.set("refused", `It has ${Math.round(size / 1e6)} MB; this page takes up to ${most} MB.`);
      return;
    }
    try {
      this.source = await openFile(this.file, this.isClip, this.url);
      this.thumbnail = thumbnail(this.source, THUMBNAIL);
      if (this.stage === "opening") this.set("ready");
    } catch (error) {
      // A server that is away or full may take it later.
      const later = error instanceof Refusal && (error.status === 0 || error.later !== undefined);
      this.set(later ? "failed" : "refused", wording(error));
    }
  }

  /** Stop what is being done with it. */
  cancel(): void {
    this.stopper.abort();
    this.stopper = new AbortController();
    if (!this.busy) return;
    this.forgetJob();
    this.set("ready");
  }

  /** Remove its result from the server. */
  forgetJob(): void {
    if (this.job) forget(this.job.id);
    this.job = this.made = undefined;
  }

  /** Its result cannot be had any more. */
  lose(error: unknown): undefined {
    const gone = error instanceof Refusal && error.status === 404;
    this.job = this.made = undefined;
    this.set("failed", gone ? "The server no longer has its result; enlarge it again." : wording(error));
  }

  close(): void {
    this.stopper.abort();
    this.forgetJob();
    URL.revokeObjectURL(this.url);
  }
}

/** An error as a sentence for the visitor. */
export function wording(error: unknown): string {
  return error instanceof Refusal ? error.message : sentence(String((error as Error).message ?? error));
}
