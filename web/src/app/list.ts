import { part } from "../compare";
import { resultPlace } from "./api";
import type { Item } from "./item";
import { stateOf } from "./words";

/** What the visitor does with a row. */
export interface Acts {
  readonly pick: (item: Item) => void;
  readonly remove: (item: Item) => void;
}

/** The files, one row each. */
export class List {
  private readonly template: HTMLTemplateElement;
  private readonly rows = new Map<Item, HTMLElement>();

  constructor(
    private readonly root: HTMLElement,
    private readonly acts: Acts,
  ) {
    this.template = part(root, "template");
  }

  add(item: Item): void {
    const row = this.template.content.firstElementChild!.cloneNode(true) as HTMLElement;
    part(row, ".name").textContent = item.file.name;
    part(row, ".pick").addEventListener("click", () => this.acts.pick(item));
    const remove = part(row, ".remove");
    remove.setAttribute("aria-label", `Remove ${item.file.name}`);
    remove.addEventListener("click", () => this.acts.remove(item));
    part(row, ".get").setAttribute("aria-label", `Download the result of ${item.file.name}`);
    part(row, "progress").setAttribute("aria-label", `Progress of ${item.file.name}`);
    this.rows.set(item, row);
    this.root.append(row);
    this.update(item);
  }

  remove(item: Item): void {
    this.rows.get(item)?.remove();
    this.rows.delete(item);
  }

  update(item: Item): void {
    const row = this.rows.get(item);
    if (!row) return;
    row.dataset["stage"] = item.stage;
    part(row, ".state").textContent = stateOf(item);
    const bar = part<HTMLProgressElement>(row, "progress");
    if (item.stage === "sending" || item.stage === "running") bar.value = item.share;
    else bar.removeAttribute("value");
    const get = part<HTMLAnchorElement>(row, ".get");
    get.hidden = item.stage !== "done";
    if (item.stage === "done") get.href = resultPlace(item.job!.id);
    const place = part(row, ".thumbnail");
    if (item.thumbnail && place.firstElementChild !== item.thumbnail)
      place.replaceChildren(item.thumbnail);
  }

  pick(picked: Item | undefined): void {
    for (const [item, row] of this.rows)
      part(row, ".pick").setAttribute("aria-current", String(item === picked));
  }
}
