/** Every file of a job, to take away. */

import { fill, h } from "../dom";
import { bytes } from "../format";
import { texts } from "../texts";
import type { Artefact, Job } from "../types";

const INSTANCE = /(^|\/)instance-/;
const OPEN = ["segmentation", "meshes"];

export class FileList {
  private readonly list = h("div");
  private readonly archive = h("a", { class: "button small", download: true, hidden: true }, texts.files.archive);
  readonly element = h("section", { class: "panel" }, h("div", { class: "panel-bar" }, h("h2", {}, texts.files.title), this.archive), this.list);
  private shown = -1;

  update(job: Job): void {
    if (job.artefacts.length === this.shown) {
      return;
    }
    this.shown = job.artefacts.length;
    if (job.archive_url) {
      this.archive.href = job.archive_url;
    }
    this.archive.hidden = !job.archive_url || !job.artefacts.length;
    const groups = new Map<string, Artefact[]>();
    for (const artefact of job.artefacts) {
      const name = groupOf(artefact.name);
      groups.set(name, [...(groups.get(name) ?? []), artefact]);
    }
    const order = Object.keys(texts.files.groups).filter((name) => groups.has(name));
    fill(
      this.list,
      ...(order.length
        ? order.map((name) => group(texts.files.groups[name] ?? name, groups.get(name) ?? [], OPEN.includes(name)))
        : [h("p", { class: "faint" }, texts.files.pending)]),
    );
  }
}

function groupOf(name: string): string {
  const folder = name.includes("/") ? (name.split("/")[0] ?? "") : "";
  if (folder === "thumbnails" && INSTANCE.test(name)) {
    return "instances";
  }
  return folder in texts.files.groups ? folder : "other";
}

function group(title: string, artefacts: Artefact[], open: boolean): HTMLElement {
  return h(
    "details",
    { open },
    h("summary", {}, title, h("span", { class: "faint" }, `${artefacts.length}`)),
    h(
      "ul",
      { class: "file-list" },
      ...artefacts.map(({ name, url, size }) => h("li", {}, h("a", { href: url, download: name.split("/").pop() }, name.split("/").pop()), h("span", { class: "faint" }, bytes(size)))),
    ),
  );
}
