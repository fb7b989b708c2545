/** Every series that the caller may see, the newest first, with the work on it as it goes. */

import { api } from "../api";
import { type Context, may } from "../context";
import { fill, h, soon, whenQuiet } from "../dom";
import { listen } from "../events";
import { empty, failure, isAbort } from "../notices";
import { address, note } from "../router";
import { SeriesRow } from "../series_row";
import { texts } from "../texts";

const PAGE_SIZE = 25;
const TYPING_MS = 250;
const REFRESH_MS = 400;
const MODALITIES = ["CT", "MR", "PT", "CR", "DX", "MG", "US", "XA", "NM", "SEG"];
const STATUSES = ["processing", "complete", "partial"];

export function worklist({ parameters, session, signal }: Context): HTMLElement {
  let offset = Math.max(0, Number(parameters.get("from") ?? 0) || 0);
  let asked = new AbortController();
  const rows = new Map<string, SeriesRow>();

  const search = h("input", { type: "search", placeholder: texts.worklist.searchHint, "aria-label": texts.worklist.search, spellcheck: "false" });
  const modality = select(texts.worklist.modality, MODALITIES, (value) => value, parameters.get("modality") ?? "");
  const status = select(texts.worklist.status, STATUSES, (value) => texts.statuses[value] ?? value, parameters.get("status") ?? "");
  const found = h("p", { class: "found", role: "status" });
  const live = h("p", { class: "offline", hidden: true }, texts.nav.offline);
  const list = h("ul", { class: "worklist" });
  const place = h("div", {}, h("p", { class: "notice" }, texts.loading));
  const earlier = h("button", { type: "button", onclick: () => turn(-PAGE_SIZE) }, texts.worklist.earlier);
  const later = h("button", { type: "button", onclick: () => turn(PAGE_SIZE) }, texts.worklist.later);
  const range = h("span", { class: "faint" });
  const pager = h("div", { class: "pager", hidden: true }, earlier, range, later);

  const filtered = (): boolean => Boolean(search.value || modality.value || status.value);

  async function read(): Promise<void> {
    asked.abort();
    const mine = new AbortController();
    asked = mine;
    signal.addEventListener("abort", () => mine.abort(), { signal: mine.signal });
    try {
      const page = await api.listSeries(
        { text: search.value.trim(), modality: modality.value, status: status.value, limit: PAGE_SIZE, offset },
        mine.signal,
      );
      if (!page.items.length && offset > 0) {
        offset = Math.max(0, Math.floor((page.total - 1) / PAGE_SIZE) * PAGE_SIZE);
        return await read();
      }
      const uids = page.items.map((series) => series.series_instance_uid);
      for (const uid of rows.keys()) {
        if (!uids.includes(uid)) {
          rows.delete(uid);
        }
      }
      const wanted = page.items.map((series) => {
        const row = rows.get(series.series_instance_uid) ?? new SeriesRow(series);
        row.update(series);
        rows.set(series.series_instance_uid, row);
        return row.element;
      });
      if (wanted.length !== list.children.length || wanted.some((row, index) => row !== list.children[index])) {
        list.replaceChildren(...wanted);
      }
      found.textContent = texts.worklist.found(page.total);
      fill(place, wanted.length ? [head(), list] : nothing());
      pager.hidden = page.total <= PAGE_SIZE;
      earlier.disabled = offset === 0;
      later.disabled = offset + page.items.length >= page.total;
      range.textContent = texts.worklist.range(offset + 1, offset + page.items.length, page.total);
      // The words of the search are left out: they may be a patient's name, and addresses are kept in histories.
      note(address([], { modality: modality.value, status: status.value, from: offset ? String(offset) : "" }));
    } catch (error) {
      if (!isAbort(error)) {
        fill(place, failure(texts.worklist.failed, error, () => void read()));
      }
    } finally {
      mine.abort();
    }
  }

  function nothing(): HTMLElement {
    if (filtered()) {
      return empty(texts.worklist.nothingTitle, texts.worklist.nothing, h("button", { type: "button", onclick: clear }, texts.worklist.clear));
    }
    const link = may(session, "uploader") ? h("a", { class: "button primary", href: "#/upload" }, texts.worklist.upload) : null;
    return empty(texts.worklist.emptyTitle, texts.worklist.empty, link);
  }

  function clear(): void {
    search.value = modality.value = status.value = "";
    changed();
    search.focus();
  }

  function changed(): void {
    offset = 0;
    void read();
  }

  function turn(by: number): void {
    offset = Math.max(0, offset + by);
    void read().then(() => list.querySelector("a")?.focus());
  }

  const refresh = soon(REFRESH_MS, () => void read());
  signal.addEventListener("abort", refresh.cancel);
  search.addEventListener("input", whenQuiet(TYPING_MS, changed));
  modality.addEventListener("change", changed);
  status.addEventListener("change", changed);
  void read();
  void listen(
    {},
    {
      connected: (stands) => {
        live.hidden = stands;
      },
      event: (name, data) => {
        if (name === "job.progressed") {
          rows.get(data.series_instance_uid ?? "")?.happened(data);
        } else if (data.series_instance_uid) {
          refresh();
        }
      },
    },
    signal,
  );

  return h(
    "section",
    { class: "view" },
    h("div", { class: "bar" }, h("h1", {}, texts.worklist.title), found),
    h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() }, search, modality, status),
    live,
    place,
    pager,
  );
}

function head(): HTMLElement {
  const { patient, series, date, size, stages } = texts.worklist;
  return h("div", { class: "row head", "aria-hidden": "true" }, h("span"), h("span", { class: "row-words" }, ...[patient, series, date, size].map((name) => h("span", {}, name))), h("span", {}, stages));
}

function select(label: string, values: string[], say: (value: string) => string, chosen: string): HTMLSelectElement {
  const element = h(
    "select",
    { "aria-label": label },
    h("option", { value: "" }, `${label}: ${texts.worklist.all}`),
    ...values.map((value) => h("option", { value }, say(value))),
  );
  element.value = values.includes(chosen) ? chosen : "";
  return element;
}
