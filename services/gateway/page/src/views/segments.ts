/** The segments of a job: what they are, how large, and how they are shown. */

import { fill, h } from "../dom";
import { hounsfield, millilitres } from "../format";
import { texts } from "../texts";
import type { Job, Segment } from "../types";
import type { Look } from "../viewer/niivue";

const MANY = 12;
const SHELL = 0.35;
const MOST_TOGETHER = 0.2;
const LEAST = 0.03;

export class SegmentList {
  private readonly list = h("ul", { class: "segments" });
  private readonly filter = h("input", { type: "search", placeholder: texts.segments.filter, "aria-label": texts.segments.filter, hidden: true });
  private readonly buttons = h(
    "div",
    { class: "actions", hidden: true },
    h("button", { type: "button", class: "small", onclick: () => this.showAll(true) }, texts.segments.all),
    h("button", { type: "button", class: "small", onclick: () => this.showAll(false) }, texts.segments.nothing),
  );
  readonly element = h("section", { class: "panel" }, h("div", { class: "panel-bar" }, h("h2", {}, texts.segments.title), this.buttons), this.filter, this.list);
  private readonly looks = new Map<number, Look>();
  private readonly boxes = new Map<number, HTMLInputElement>();
  private shown = "";

  constructor(
    private readonly modality: string,
    private readonly changed: (looks: ReadonlyMap<number, Look>) => void,
  ) {
    this.filter.addEventListener("input", () => this.find());
  }

  update(job: Job): void {
    const segments = job.segments.filter((segment) => segment.volume_ml === null || segment.volume_ml > 0);
    const outcome = job.stages.find((stage) => stage.stage === "segment")?.outcome ?? "pending";
    const now = JSON.stringify([segments, outcome]);
    if (now === this.shown) {
      return;
    }
    this.shown = now;
    this.buttons.hidden = !segments.length;
    this.filter.hidden = segments.length <= MANY;
    if (!segments.length) {
      fill(this.list, h("li", { class: "faint" }, texts.segments.without[outcome]));
      return;
    }
    this.dim(segments);
    const mean = this.modality === "CT" ? texts.segments.mean : texts.segments.meanOther;
    fill(
      this.list,
      h("li", { class: "segment head", "aria-hidden": "true" }, h("span"), h("span"), h("span", { class: "number" }, texts.segments.volume), h("span", { class: "number" }, mean)),
      ...segments.map((segment) => this.row(segment)),
    );
    this.changed(this.looks);
  }

  private row(segment: Segment): HTMLElement {
    const look = this.looks.get(segment.number) ?? { visible: true, opacity: segment.opacity };
    this.looks.set(segment.number, look);
    const box = h("input", {
      type: "checkbox",
      "aria-label": texts.segments.show(segment.label),
      onchange: () => {
        look.visible = box.checked;
        this.changed(this.looks);
      },
    });
    box.checked = look.visible;
    box.style.setProperty("--colour", segment.colour);
    this.boxes.set(segment.number, box);
    const slider = h("input", {
      type: "range",
      min: LEAST,
      max: 1,
      step: 0.01,
      "aria-label": texts.segments.opacity(segment.label),
      oninput: () => {
        look.opacity = slider.valueAsNumber;
        this.changed(this.looks);
      },
    });
    slider.value = String(look.opacity);
    const files = Object.entries(segment.meshes).map(([format, url]) =>
      h("a", { href: url, download: `${segment.name}.${format}`, "aria-label": texts.segments.file(format, segment.label) }, format.toUpperCase()),
    );
    return h(
      "li",
      { class: "segment", "data-name": `${segment.label} ${segment.name}`.toLowerCase() },
      h("label", { class: "segment-name" }, box, h("span", {}, segment.label)),
      slider,
      h("span", { class: "number" }, millilitres(segment.volume_ml)),
      h("span", { class: "number" }, hounsfield(segment.mean_hu)),
      h("span", { class: "segment-files" }, ...files),
    );
  }

  /** Shells lie around each other: together they may hide no more than this much of what is inside. */
  private dim(segments: Segment[]): void {
    const shells = segments.filter((segment) => segment.opacity < SHELL);
    const together = shells.reduce((sum, segment) => sum + segment.opacity, 0);
    for (const segment of shells) {
      if (!this.looks.has(segment.number)) {
        const opacity = segment.opacity * Math.min(1, MOST_TOGETHER / together);
        this.looks.set(segment.number, { visible: true, opacity: Math.max(LEAST, Math.round(opacity * 100) / 100) });
      }
    }
  }

  private showAll(visible: boolean): void {
    for (const [number, box] of this.boxes) {
      box.checked = visible;
      const look = this.looks.get(number);
      if (look) {
        look.visible = visible;
      }
    }
    this.changed(this.looks);
  }

  private find(): void {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const row of this.list.querySelectorAll<HTMLElement>("[data-name]")) {
      row.hidden = !row.dataset["name"]?.includes(wanted);
    }
  }
}
