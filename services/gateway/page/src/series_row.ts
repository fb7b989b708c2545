/** One series in a list: its picture, whose it is, and its stages. */

import { fill, h } from "./dom";
import { count, date, personName } from "./format";
import { address } from "./router";
import { StageBars } from "./stages";
import { texts } from "./texts";
import type { Happening, Series } from "./types";

export class SeriesRow {
  readonly element: HTMLLIElement;
  private readonly bars = new StageBars();
  private readonly link: HTMLAnchorElement;
  private shown = "";
  private picture = "";
  private readonly frame = h("span", { class: "thumb" });
  private readonly words = h("span", { class: "row-words" });

  constructor(private series: Series) {
    this.link = h("a", { class: "row" }, this.frame, this.words, this.bars.element);
    this.element = h("li", {}, this.link);
    this.update(series);
  }

  /** Show what is new of it; what is the same stays untouched, and so does the focus. */
  update(series: Series): void {
    const now = JSON.stringify(series);
    if (now === this.shown) {
      return;
    }
    this.shown = now;
    this.series = series;
    const patient = personName(series.patient_name);
    const description = series.series_description || series.study_description || texts.unspecified;
    this.link.href = address(["series", series.series_instance_uid]);
    this.link.setAttribute("aria-label", texts.worklist.open(patient, description));
    this.draw(series.preview_url, series.modality);
    fill(
      this.words,
      h(
        "span",
        { class: "cell patient" },
        h("b", {}, patient),
        h("small", {}, [series.patient_id, series.project === "default" ? "" : series.project].filter(Boolean).join(" · ") || texts.none),
      ),
      h(
        "span",
        { class: "cell what" },
        h("span", {}, h("span", { class: "modality" }, series.modality || texts.none), description),
        h("small", {}, series.study_description && series.study_description !== description ? series.study_description : null),
      ),
      h("span", { class: "cell when" }, date(series.study_date) || texts.none),
      h("span", { class: "cell many", "aria-label": texts.worklist.images(series.instances) }, count(series.instances)),
    );
    this.element.dataset["status"] = series.job?.status ?? "none";
    this.bars.show(series.job?.stages ?? []);
  }

  /** Take up an event of the work on it; say whether the list should be read anew. */
  happened(event: Happening): void {
    if (event.stage && event.job_id === this.series.job?.job_id) {
      this.bars.progress(event.stage, event.percent ?? null, event.step ?? "");
    }
  }

  private draw(url: string | null, modality: string): void {
    const now = url ?? modality;
    if (now === this.picture) {
      return;
    }
    this.picture = now;
    fill(this.frame, url ? h("img", { src: url, alt: "", loading: "lazy", decoding: "async", width: 72, height: 72 }) : modality);
  }
}
