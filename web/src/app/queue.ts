import { isAlive, jobOf, Refusal, sentence, startJob } from "./api";
import { wording, type Item } from "./item";

/** Files that are sent or enlarged at the same time: one is sent while another is computed. */
const TOGETHER = 2;
/** Milliseconds between two questions about a job, at first and at most. */
const [SOON, SELDOM] = [150, 1000];
/** Tries to reach the server; many if it lives, for one that is full hangs up on large files. */
const [TRIES, MANY_TRIES] = [4, 300];

/** What is asked for a file: the options of a job. */
export type Wish = Readonly<Record<string, string>>;

/** Sends files and waits for their results, a few at the same time. */
export class Queue {
  private readonly waiting: { readonly item: Item; readonly wish: Wish; readonly signal: AbortSignal }[] =
    [];
  private running = 0;

  add(item: Item, wish: Wish): void {
    item.forgetJob();
    item.set("waiting");
    this.waiting.push({ item, wish, signal: item.signal });
    this.next();
  }

  private next(): void {
    while (this.running < TOGETHER) {
      const one = this.waiting.shift();
      if (!one) return;
      if (one.signal.aborted) continue;
      this.running += 1;
      void enlarge(one.item, one.wish, one.signal).finally(() => {
        this.running -= 1;
        this.next();
      });
    }
  }
}

async function enlarge(item: Item, wish: Wish, signal: AbortSignal): Promise<void> {
  try {
    item.job = await send(item, wish, signal);
    for (let pause = SOON; ; pause = Math.min(pause * 1.3, SELDOM)) {
      const { state, share, left, message } = item.job;
      [item.share, item.left] = [share, left];
      if (state === "done") {
        item.made = { wish: JSON.stringify(wish), scale: Number(wish["scale"]) };
        return item.set("done", message && sentence(message));
      }
      if (state === "failed" || state === "cancelled")
        return item.set("failed", sentence(message || "It was cancelled"));
      item.set(state);
      await rest(pause, signal);
      item.job = await again(() => jobOf(item.job!.id, signal), signal);
    }
  } catch (error) {
    // Who cancels it says what becomes of it.
    if (!signal.aborted) item.set("failed", wording(error));
  }
}

/** Start the job, as soon as the server has room for it. */
async function send(item: Item, wish: Wish, signal: AbortSignal) {
  const progress = (share: number) => {
    item.share = share;
    if (item.stage === "sending") item.set("sending");
  };
  return again(
    () => {
      [item.share, item.left] = [0, null];
      item.set("sending");
      return startJob(item.file, wish, progress, signal);
    },
    signal,
    (reason) => item.set("waiting", reason),
  );
}

/** Try until it succeeds, as long as the server says that it may. */
async function again<T>(
  attempt: () => Promise<T>,
  signal: AbortSignal,
  wait: (reason: string) => void = () => undefined,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Refusal) || error.later === undefined) throw error;
      if (error.status === 0 && tries >= TRIES && (tries >= MANY_TRIES || !(await isAlive()))) throw error;
      wait(error.message);
      await rest(error.later * 1000, signal);
    }
  }
}

function rest(milliseconds: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(signal.reason);
      },
      { once: true },
    );
  });
}
