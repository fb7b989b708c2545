/** Uploading: drop or choose, watch it go, then watch what becomes of it. */

import { api } from "../api";
import type { Context } from "../context";
import { fill, h, soon } from "../dom";
import { listen } from "../events";
import { bytes } from "../format";
import { failure, isAbort, reason, say } from "../notices";
import { SeriesRow } from "../series_row";
import { texts } from "../texts";
import type { Refused } from "../types";
import { ofDrop, ofInput, type Picked } from "../upload/picked";
import { type Item, MOST_FILES, Upload } from "../upload/uploading";

const SHOWN = 200;
const DRAW_MS = 100;
const WATCH_MS = 700;

export function upload({ signal }: Context): HTMLElement {
  const stage = h("div", { "aria-live": "polite" });
  const folder = h("input", { type: "file", webkitdirectory: true, multiple: true, id: "folder", class: "spoken" });
  const files = h("input", { type: "file", multiple: true, id: "files", class: "spoken" });
  const message = h("p", { class: "wrong", role: "alert" });
  const target = h(
    "div",
    { class: "drop", ondragover: over, ondragleave: out, ondrop: (event) => void dropped(event) },
    h("p", { class: "drop-title" }, texts.upload.drop),
    h(
      "div",
      { class: "actions" },
      folder,
      h("label", { for: "folder", class: "button primary" }, texts.upload.folder),
      files,
      h("label", { for: "files", class: "button" }, texts.upload.files),
    ),
    message,
  );

  function over(event: DragEvent): void {
    event.preventDefault();
    target.classList.add("over");
  }

  function out(): void {
    target.classList.remove("over");
  }

  async function dropped(event: DragEvent): Promise<void> {
    event.preventDefault();
    out();
    if (event.dataTransfer) {
      const picked = await ofDrop(event.dataTransfer, (count) => fill(message, texts.upload.reading(count)));
      take(picked);
    }
  }

  function take(picked: Picked[]): void {
    fill(message);
    if (!picked.length) {
      fill(message, texts.upload.nothing);
    } else if (picked.length > MOST_FILES) {
      fill(message, texts.upload.tooMany(picked.length, MOST_FILES));
    } else {
      target.hidden = true;
      fill(stage, sending(picked, signal, restart));
    }
  }

  function restart(): void {
    folder.value = files.value = "";
    target.hidden = false;
    fill(stage);
    folder.focus();
  }

  for (const input of [folder, files]) {
    input.addEventListener("change", () => take(ofInput(input)));
  }
  // A file that is dropped beside the box would be opened by the browser in place of this page.
  for (const name of ["dragover", "drop"]) {
    window.addEventListener(name, (event) => event.preventDefault(), { signal });
  }
  return h("section", { class: "view" }, h("div", { class: "bar" }, h("h1", {}, texts.upload.title)), h("p", { class: "lead" }, texts.upload.lead), target, stage);
}

function sending(picked: Picked[], signal: AbortSignal, restart: () => void): HTMLElement {
  const bar = h("progress", { max: 1, value: 0, "aria-label": texts.upload.overall });
  const line = h("p", { class: "sending", role: "status" }, texts.upload.opening);
  const stop = h("button", { type: "button", class: "quiet", onclick: () => void giveUp() }, texts.upload.stop);
  const list = h("tbody");
  const more = h("p", { class: "faint" });
  const detail = h("details", { class: "files", open: true }, h("summary", {}, texts.upload.perFile), h("table", {}, list), more);
  const after = h("div");
  const box = h("div", {}, h("div", { class: "overall" }, line, bar, stop), after, detail);
  const rows = new Map<Item, { row: HTMLElement; bar: HTMLProgressElement; state: HTMLElement }>();
  const draw = soon(DRAW_MS, drawNow);
  const current = new Upload(picked, draw, () => say(texts.upload.resuming));
  let over = false;

  window.addEventListener("beforeunload", (event) => over || event.preventDefault(), { signal });
  signal.addEventListener("abort", () => {
    draw.cancel();
    over = true;
  });

  function drawNow(): void {
    bar.value = current.bytes ? current.sent / current.bytes : 0;
    line.textContent = texts.upload.sending(current.of("done"), picked.length, bytes(current.sent), bytes(current.bytes));
    const first = current.items.filter((item) => item.state === "failed" || item.state === "sending");
    const shown = [...first, ...current.items.filter((item) => !first.includes(item))].slice(0, SHOWN);
    const wanted = shown.map(rowOf);
    if (wanted.some((row, index) => row !== list.children[index])) {
      list.replaceChildren(...wanted);
    }
    more.textContent = picked.length > SHOWN ? texts.upload.andMore(picked.length - SHOWN) : "";
  }

  function rowOf(item: Item): HTMLElement {
    let known = rows.get(item);
    if (!known) {
      const progress = h("progress", { max: item.picked.file.size, value: 0, "aria-label": item.picked.path });
      const state = h("td", { class: "state" });
      known = { row: h("tr", {}, h("td", { class: "path" }, item.picked.path), h("td", { class: "number" }, bytes(item.picked.file.size)), h("td", {}, progress), state), bar: progress, state };
      rows.set(item, known);
    }
    known.bar.value = item.sent;
    known.row.dataset["state"] = item.state;
    known.state.textContent = item.reason || texts.upload.states[item.state];
    return known.row;
  }

  async function run(): Promise<void> {
    fill(after);
    stop.hidden = false;
    try {
      const whole = await current.send();
      draw.cancel(); // a drawing that is still to come would write over what is said now
      drawNow();
      over = true;
      stop.hidden = true;
      if (whole) {
        line.textContent = texts.upload.done(picked.length, bytes(current.bytes));
        detail.open = false;
        fill(after, becomes(current.id, picked.map((one) => one.path), signal, restart));
      } else {
        fill(after, failure(texts.upload.failed(current.of("failed")), new Error(texts.upload.failedNext), () => void run()));
      }
    } catch (error) {
      if (!isAbort(error)) {
        stop.hidden = true;
        fill(after, failure(texts.upload.openFailed, error, () => void run()));
      }
    }
  }

  async function giveUp(): Promise<void> {
    over = true;
    try {
      await current.stop();
      say(texts.upload.stopped);
    } catch (error) {
      say(reason(error));
    }
    restart();
  }

  drawNow();
  void run();
  return box;
}

/** The series that an upload has become, with the work on them. */
function becomes(id: string, paths: string[], signal: AbortSignal, restart: () => void): HTMLElement {
  const rows = new Map<string, SeriesRow>();
  const seen = new Map<string, string>();
  const list = h("ul", { class: "worklist" });
  const refused = h("details", { class: "refused", hidden: true });
  const line = h("p", { class: "faint", role: "status" }, texts.upload.sorting);
  let over = false;

  function refusal({ number, reason: code, detail }: Refused): HTMLElement {
    const path = number === null ? texts.upload.inArchive : (paths[number] ?? String(number));
    return h("li", {}, h("b", {}, path), ` ${[code, detail].filter(Boolean).join(": ")}`);
  }

  async function read(): Promise<void> {
    try {
      const { objects, series } = await api.outcome(id, signal);
      if (objects) {
        line.textContent = texts.upload.objects(objects.settled, objects.expected, objects.refused_total);
        refused.hidden = !objects.refused_total;
        fill(refused, h("summary", {}, texts.upload.refused(objects.refused_total)), h("ul", {}, ...objects.refused.map(refusal)));
      }
      for (const { series_instance_uid: uid, job } of series) {
        const now = JSON.stringify(job);
        if (seen.get(uid) !== now) {
          const whole = await api.series(uid, signal);
          seen.set(uid, now);
          const row = rows.get(uid) ?? new SeriesRow(whole);
          row.update(whole);
          if (!rows.has(uid)) {
            list.append(row.element);
          }
          rows.set(uid, row);
        }
      }
      const looked = objects !== null && objects.settled >= objects.expected;
      over = looked && series.every(({ job }) => job && job.status !== "processing");
      if (over && !series.length) {
        line.textContent += `. ${texts.upload.noSeries}`;
      }
    } catch (error) {
      if (!isAbort(error)) {
        line.textContent = reason(error);
      }
    }
    if (!over && !signal.aborted) {
      again();
    }
  }

  const again = soon(WATCH_MS, () => void read());
  signal.addEventListener("abort", again.cancel);
  void listen(
    {},
    {
      event: (name, data) => {
        const row = rows.get(data.series_instance_uid ?? "");
        if (name === "job.progressed") {
          row?.happened(data);
        } else if (row) {
          again();
        }
      },
    },
    signal,
  );
  void read();
  return h(
    "section",
    {},
    h("div", { class: "bar" }, h("h2", {}, texts.upload.becomes), h("button", { type: "button", onclick: restart }, texts.upload.another)),
    line,
    refused,
    list,
  );
}
