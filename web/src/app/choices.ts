import { part } from "../compare";
import type { About, ModelRow } from "./api";
import type { Item } from "./item";
import type { Wish } from "./queue";

/** Formats whose quality can be chosen; that of the input may be one. */
const LOSSY = ["keep", "jpg", "webp", "avif", "jxl"];
/** Codecs that lose nothing, or whose quality follows from their profile. */
const WITHOUT_QUALITY = ["ffv1", "prores"];

const CODECS: Readonly<Record<string, string>> = {
  h264: "H.264",
  hevc: "HEVC",
  av1: "AV1",
  ffv1: "FFV1, lossless",
  prores: "ProRes",
};
const MODELS: Readonly<Record<string, string>> = {
  bicubic: "Bicubic",
  "magic:1.0": "Magic Kernel Sharp 2021",
};

/** What the visitor may choose, from what the server offers. */
export class Choices {
  constructor(
    private readonly form: HTMLFormElement,
    about: About,
    private readonly rows: readonly ModelRow[],
    changed: () => void,
  ) {
    this.offerModels();
    fill(part(form, "[name=format]"), Object.entries(about.formats));
    fill(
      part(form, "[name=codec]"),
      about.codecs.map((codec) => [codec, CODECS[codec] ?? codec]),
    );
    this.quality("picture-quality", about.picture_quality);
    this.quality("clip-quality", about.clip_quality);
    form.addEventListener("input", () => {
      this.update();
      changed();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    this.update();
  }

  /** Ask about what these files can have. */
  showFor(items: readonly Item[]): void {
    const clips = items.some((item) => item.isClip);
    part<HTMLElement>(this.form, ".of-clips").hidden = !clips;
    part<HTMLElement>(this.form, ".of-pictures").hidden = clips && items.every((item) => item.isClip);
  }

  /** What is asked for a file. */
  wishFor(item: Item): Wish {
    const strength = this.row().dial && Number(this.value("strength")) < 1 ? this.value("strength") : "";
    const about = { model: this.value("model"), scale: this.value("scale"), ...(strength && { strength }) };
    if (!item.isClip) {
      const format = this.value("format");
      const quality = LOSSY.includes(format) ? { quality: this.value("picture-quality") } : {};
      return { ...about, format, ...quality };
    }
    const codec = this.value("codec");
    const quality = WITHOUT_QUALITY.includes(codec) ? {} : { quality: this.value("clip-quality") };
    return { ...about, format: this.value("container"), ...(codec && { codec }), ...quality };
  }

  /** The chosen model, at any of its scales. */
  private row(): ModelRow {
    return this.rows.find((row) => row.model === this.value("model"))!;
  }

  private value(name: string): string {
    return String(new FormData(this.form).get(name) ?? "");
  }

  private offerModels(): void {
    const template = part<HTMLTemplateElement>(this.form, "#models template");
    const known = [...new Set(this.rows.map((row) => row.model))];
    const place = (model: string) => known.findIndex((one) => variantOf(one) === variantOf(model));
    // The plain model of a variant comes before those of its other kinds.
    known.sort((a, b) => place(a) - place(b) || a.length - b.length);
    const least = Math.min(...this.rows.map((row) => row.kmacs_per_pixel ?? Infinity));
    for (const model of known) {
      const row = this.rows.find((one) => one.model === model)!;
      const label = template.content.firstElementChild!.cloneNode(true) as HTMLElement;
      part<HTMLInputElement>(label, "input").value = row.model;
      part(label, "b").textContent = labelOf(row);
      part(label, ".purpose").textContent = row.purpose;
      const times = (row.kmacs_per_pixel ?? 0) / least;
      part(label, ".cost").textContent = times >= 2 ? `${Math.round(times)} × the work` : "";
      part(this.form, "#models").append(label);
    }
    part<HTMLInputElement>(this.form, "#models input").checked = true;
  }

  private quality(name: string, usual: number): void {
    part<HTMLInputElement>(this.form, `[name=${name}]`).value = String(usual);
  }

  /** Offer only what goes together. */
  private update(): void {
    const scales = this.rows.filter((row) => row.model === this.value("model")).map((row) => row.scale);
    const radios = [...this.form.querySelectorAll<HTMLInputElement>("[name=scale]")];
    for (const radio of radios) radio.disabled = !scales.includes(Number(radio.value));
    const chosen = radios.find((radio) => radio.checked && !radio.disabled);
    if (!chosen) radios.find((radio) => !radio.disabled)!.checked = true;
    this.dim("strength", !this.row().dial);
    this.dim("picture-quality", !LOSSY.includes(this.value("format")));
    this.dim("clip-quality", WITHOUT_QUALITY.includes(this.value("codec")));
    for (const output of this.form.querySelectorAll("output"))
      output.textContent = part<HTMLInputElement>(this.form, `#${output.htmlFor}`).value;
  }

  private dim(name: string, off: boolean): void {
    part<HTMLElement>(this.form, `.field:has([name=${name}])`).hidden = off;
  }
}

function variantOf(model: string): string {
  return model.split(":")[0]!;
}

function labelOf({ model, word }: ModelRow): string {
  const [variant = "", kind] = model.split(":");
  const name = capital(variant);
  return MODELS[model] ?? (kind ? `${capital(word ?? kind)} · ${name}` : name);
}

function capital(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}`;
}

function fill(select: HTMLSelectElement, options: readonly (readonly [string, string])[]): void {
  for (const [value, label] of options) select.append(new Option(label, value));
}
