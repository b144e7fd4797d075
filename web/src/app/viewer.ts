import { Compare, part } from "../compare";
import { controlClips } from "../controls";
import { Loupe } from "../loupe";
import type { Item } from "./item";
import { isVideo, openResult, openStill, type Media } from "./media";
import { Pair } from "./pair";

/** The large picture, with the line, and the crop below it. */
export class Viewer {
  private readonly compare: Compare;
  private readonly loupe: Loupe;
  private readonly clip: HTMLElement;
  private shown = "";
  private showing: Promise<void> = Promise.resolve();
  private pair: Pair | undefined;
  private leading: HTMLVideoElement | undefined;

  constructor(private readonly root: HTMLElement) {
    this.loupe = new Loupe(part(root, ".loupe"), part(root, ".outline"));
    this.compare = new Compare(part(root, "#compare"), (x, y) => this.loupe.look(x, y));
    this.clip = part(root, ".clip");
    controlClips(this.clip, () => this.leading);
  }

  /** Show a file, with its result if there is one; undefined shows nothing. Ends when it is there. */
  show(item: Item | undefined): Promise<void> {
    const done = item?.stage === "done" ? item.job : undefined;
    const wanted = item ? `${item.key} ${item.source ? "open" : ""} ${done?.id ?? ""}` : "";
    if (wanted !== this.shown) {
      this.shown = wanted;
      this.showing = this.open(wanted, item);
    }
    return this.showing;
  }

  private async open(wanted: string, item: Item | undefined): Promise<void> {
    const done = item?.stage === "done" ? item.job : undefined;
    const result = item && done ? await openResult(done).catch((error) => item.lose(error)) : undefined;
    let source = item?.source;
    if (item && isVideo(source) && result && !isVideo(result))
      source = await openStill(item.file).catch(() => undefined);
    // In the meantime something else may have been chosen.
    if (wanted === this.shown) this.put(source, result);
  }

  private put(before: Media | undefined, after: Media | undefined): void {
    this.pair?.close();
    this.leading?.pause();
    this.pair = this.leading = undefined;
    this.root.dataset["shows"] = after ? "result" : before ? "source" : "nothing";
    const large = after ?? before;
    if (!large) {
      this.compare.clear();
      this.loupe.hide();
      this.clip.hidden = true;
      return;
    }
    // A clip that plays beside a frame that stands would compare nothing.
    const both = before && after && isVideo(before) === isVideo(after);
    this.compare.put(both || !after ? before?.image : undefined, after?.image, large.width, large.height);
    this.clip.hidden = !isVideo(large);
    if (isVideo(large)) this.leading = large.image;
    if (both) this.loupe.show(before, after);
    else this.loupe.hide();
    if (both && isVideo(before) && isVideo(after))
      this.pair = new Pair(before.image, after.image, () => this.loupe.draw());
    if (after && this.leading) void this.leading.play().catch(() => undefined);
  }
}
