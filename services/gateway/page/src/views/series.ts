/** One series: its images and surfaces, its segments, its files. */

import { api } from "../api";
import { type Context, may } from "../context";
import { fill, h, soon } from "../dom";
import { listen } from "../events";
import { date, personName } from "../format";
import { empty, failure, isAbort } from "../notices";
import { address, go } from "../router";
import { StageBars } from "../stages";
import { texts } from "../texts";
import type { Job, SeriesDetail, Session } from "../types";
import { FileList } from "./files";
import { Images } from "./images";
import { SegmentList } from "./segments";

const REFRESH_MS = 300;

export function series({ path, parameters, session, signal }: Context): HTMLElement {
  const uid = path[0] ?? "";
  const place = h("div", {}, h("p", { class: "notice" }, texts.loading));
  let page: SeriesPage | null = null;

  async function read(): Promise<void> {
    try {
      const found = await api.series(uid, signal);
      const id = parameters.get("job") ?? found.job?.job_id;
      const job = id ? await api.job(id, signal) : null;
      // No name: browsers keep titles in their history.
      document.title = `${found.modality || texts.worklist.title} · ${texts.name}`;
      if (!job) {
        fill(place, heading(found, null), empty(texts.series.waitingTitle, texts.series.waiting));
        return;
      }
      if (page?.id !== job.job_id) {
        page = new SeriesPage(job, session, signal);
        fill(place, heading(found, job), page.element);
      }
      page.update(job);
    } catch (error) {
      if (!isAbort(error) && !page) {
        fill(place, failure(texts.series.failed, error, () => void read()));
      }
    }
  }

  const refresh = soon(REFRESH_MS, () => void read());
  signal.addEventListener("abort", refresh.cancel);
  void read();
  void listen(
    { series: uid },
    {
      event: (name, data) => {
        if (name === "job.progressed") {
          page?.bars.progress(data.stage ?? "", data.percent ?? null, data.step ?? "");
        } else {
          refresh();
        }
      },
    },
    signal,
  );
  return h("section", { class: "view series" }, place);
}

function heading(found: SeriesDetail, job: Job | null): HTMLElement {
  const about = [
    date(found.study_date),
    found.modality,
    texts.worklist.images(found.instances),
    found.revisions > 1 && job ? texts.series.revision(job.revision) : "",
  ].filter(Boolean);
  const choice = h(
    "select",
    {
      "aria-label": texts.series.job,
      onchange: (event) => go(address(["series", found.series_instance_uid], { job: (event.target as HTMLSelectElement).value })),
    },
    ...found.jobs.map((one) =>
      h("option", { value: one.job_id, selected: one.job_id === job?.job_id }, texts.series.jobName(one.job_id, one.revision, texts.statuses[one.status] ?? one.status)),
    ),
  );
  return h(
    "div",
    { class: "heading" },
    h("a", { class: "back", href: "#/" }, `‹ ${texts.series.back}`),
    h("h1", {}, personName(found.patient_name), h("small", {}, found.patient_id)),
    h("p", {}, h("span", {}, found.series_description || found.study_description || texts.unspecified), h("span", { class: "faint" }, about.join(" · "))),
    found.jobs.length > 1 && choice,
  );
}

/** What is shown of one job. */
class SeriesPage {
  readonly id: string;
  readonly bars = new StageBars();
  readonly element: HTMLElement;
  private readonly notes = h("div", { class: "notes" });
  private readonly images: Images;
  private readonly segments: SegmentList;
  private readonly files = new FileList();

  constructor(
    job: Job,
    private readonly session: Session,
    signal: AbortSignal,
  ) {
    this.id = job.job_id;
    this.images = new Images(job.modality, signal);
    this.segments = new SegmentList(job.modality, (looks) => this.images.setLooks(looks));
    this.element = h(
      "div",
      { class: "series-page" },
      this.images.element,
      h("aside", {}, h("div", { class: "panel job" }, this.bars.element, this.notes), this.segments.element, this.files.element),
    );
  }

  update(job: Job): void {
    this.bars.show(job.stages);
    const settled = job.status === "complete" && !job.superseded;
    this.element.dataset["settled"] = String(settled);
    fill(this.notes, ...this.said(job));
    this.segments.update(job);
    this.files.update(job);
    this.images.update(job);
  }

  private said(job: Job): HTMLElement[] {
    const notes = job.superseded ? [h("p", {}, texts.series.superseded)] : [];
    for (const stage of job.stages) {
      const name = texts.stages[stage.stage] ?? stage.stage;
      if (stage.outcome === "failed") {
        notes.push(h("p", { class: "wrong" }, texts.series.stageFailed(name, stage.reason)));
      } else if (stage.outcome === "skipped" && stage.reason) {
        notes.push(h("p", {}, texts.series.stageSkipped(name, stage.reason)));
      }
      notes.push(...stage.warnings.map((warning) => h("p", { class: "faint" }, warning)));
    }
    if (job.stages.some((stage) => stage.outcome === "failed") && may(this.session, "operator")) {
      notes.push(h("p", {}, h("a", { href: address(["dead-letters"], { series: job.series_instance_uid }) }, texts.series.toLetters)));
    }
    return notes;
  }
}
