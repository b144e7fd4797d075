/**
 * Shows one picture over another, with a line between them that can be moved.
 *
 * With `point`, only the line moves the line; elsewhere a press points at a place, 0..1 each way.
 */
export class Compare {
  private readonly stage: HTMLElement;
  private readonly split: HTMLInputElement;
  private before: HTMLElement | undefined;
  private after: HTMLElement | undefined;

  constructor(
    private readonly frame: HTMLElement,
    private readonly point?: (x: number, y: number) => void,
  ) {
    this.stage = part(frame, ".stage");
    this.split = part(frame, ".split");
    this.split.addEventListener("input", () => this.move(Number(this.split.value)));
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    this.move(50);
  }

  /** Show two elements of equal shape, or one alone; they take the place of those before. */
  put(
    before: HTMLElement | undefined,
    after: HTMLElement | undefined,
    width: number,
    height: number,
  ): void {
    this.clear();
    before?.classList.add("before");
    after?.classList.add("after");
    for (const one of [after, before]) if (one) this.stage.prepend(one);
    this.frame.classList.toggle("alone", !before || !after);
    [this.before, this.after] = [before, after];
    this.stage.style.setProperty("--width", String(width));
    this.stage.style.setProperty("--height", String(height));
    this.stage.style.setProperty("--density", String(window.devicePixelRatio));
  }

  clear(): void {
    this.before?.remove();
    this.after?.remove();
  }

  /** Show one pixel of the result as one of the screen, or all of it. */
  set actual(on: boolean) {
    this.frame.classList.toggle("actual", on);
    if (!on) return;
    const { scrollWidth, clientWidth, scrollHeight, clientHeight } = this.frame;
    this.frame.scrollTo((scrollWidth - clientWidth) / 2, (scrollHeight - clientHeight) / 2);
  }

  get actual(): boolean {
    return this.frame.classList.contains("actual");
  }

  private move(percent: number): void {
    this.split.value = String(percent);
    this.stage.style.setProperty("--split", `${percent}%`);
  }

  private drag(start: PointerEvent): void {
    if (start.button !== 0) return;
    if (this.frame.classList.contains("alone")) return;
    // What is larger than the window is moved by hand; there, only the line moves the line.
    const onLine = (start.target as Element).closest(".line") !== null;
    if (this.actual && !onLine) return;
    start.preventDefault();
    const follow = (event: PointerEvent) => {
      const { left, top, width, height } = this.stage.getBoundingClientRect();
      const x = Math.min(Math.max((event.clientX - left) / width, 0), 1);
      const y = Math.min(Math.max((event.clientY - top) / height, 0), 1);
      if (this.point && !onLine) this.point(x, y);
      else this.move(Math.round(x * 1000) / 10);
    };
    const end = () => {
      this.stage.removeEventListener("pointermove", follow);
      this.stage.removeEventListener("pointerup", end);
      this.stage.removeEventListener("pointercancel", end);
    };
    this.stage.setPointerCapture(start.pointerId);
    this.stage.addEventListener("pointermove", follow);
    this.stage.addEventListener("pointerup", end);
    this.stage.addEventListener("pointercancel", end);
    follow(start);
    if (!this.point || onLine) this.split.focus({ preventScroll: true });
  }
}

/** The one element that fits. */
export function part<E extends Element>(root: ParentNode, selector: string): E {
  const found = root.querySelector<E>(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return found;
}
