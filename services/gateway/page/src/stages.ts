/** The bars of a job's stages: how far each is, and what became of it. */

import { h } from "./dom";
import { words } from "./format";
import { texts } from "./texts";
import type { StageProgress } from "./types";

const ORDER = ["thumbnail", "segment", "mesh"];

export class StageBars {
  readonly element = h("div", { class: "stages" });
  private readonly bars = new Map<string, { box: HTMLElement; fill: HTMLElement; state: HTMLElement }>();
  private stages: StageProgress[] = [];

  constructor(stages: StageProgress[] = []) {
    this.show(stages);
  }

  /** Show all stages; what is missing among the usual ones is waiting. */
  show(stages: StageProgress[]): void {
    const missing = ORDER.filter((stage) => !stages.some((one) => one.stage === stage));
    this.stages = [
      ...stages.filter((one) => ORDER.includes(one.stage)),
      ...missing.map((stage): StageProgress => ({ stage, outcome: "pending", percent: null, step: "" })),
    ].sort((one, other) => ORDER.indexOf(one.stage) - ORDER.indexOf(other.stage));
    for (const stage of this.stages) {
      this.draw(stage);
    }
  }

  /** Take up how far a stage says that it is. */
  progress(stage: string, percent: number | null, step: string): void {
    const known = this.stages.find((one) => one.stage === stage);
    if (known && known.outcome === "pending") {
      known.percent = percent;
      known.step = step;
      this.draw(known);
    }
  }

  private draw(stage: StageProgress): void {
    const name = texts.stages[stage.stage] ?? words(stage.stage);
    let bar = this.bars.get(stage.stage);
    if (!bar) {
      const fill = h("i");
      const state = h("span", { class: "stage-state" });
      const box = h(
        "div",
        { class: "stage", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 },
        h("span", { class: "stage-name" }, name),
        state,
        h("span", { class: "track" }, fill),
      );
      bar = { box, fill, state };
      this.bars.set(stage.stage, bar);
      this.element.append(box);
    }
    const percent = stage.outcome === "pending" ? (stage.percent ?? 0) : 100;
    const running = stage.outcome === "pending" && (stage.percent !== null || stage.step !== "");
    const said = running ? `${Math.round(percent)} %` : (texts.outcomes[stage.outcome] ?? stage.outcome);
    bar.box.dataset["state"] = running ? "running" : stage.outcome;
    bar.box.setAttribute("aria-valuenow", String(Math.round(percent)));
    bar.box.setAttribute("aria-label", texts.stageState(name, running && stage.step ? `${said}, ${stage.step}` : said));
    bar.box.title = stage.step && running ? words(stage.step) : "";
    bar.fill.style.inlineSize = `${percent}%`;
    bar.state.textContent = stage.outcome === "pending" && !running ? "" : said; // an empty bar says that it waits
  }
}
