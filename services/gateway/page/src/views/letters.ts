/** Messages that failed for good: why, of what, and back onto their queues. */

import { api, type LetterQuery } from "../api";
import { type Context, may } from "../context";
import { fill, h } from "../dom";
import { age, words } from "../format";
import { confirm, empty, failure, isAbort, reason, say } from "../notices";
import { address, note } from "../router";
import { texts } from "../texts";
import type { Letter, Page } from "../types";

const SERVICES = ["ingest", "thumbnail", "segment", "mesh", "index"];

export function letters({ parameters, session, signal }: Context): HTMLElement {
  let of = parameters.get("series") ?? "";
  const found = h("p", { class: "found", role: "status" });
  const place = h("div", {}, h("p", { class: "notice" }, texts.loading));
  const service = h(
    "select",
    { "aria-label": texts.letters.service },
    h("option", { value: "" }, `${texts.letters.service}: ${texts.worklist.all}`),
    ...SERVICES.map((name) => h("option", { value: name }, words(name))),
  );
  service.value = parameters.get("service") ?? "";
  const classes = h("select", { "aria-label": texts.letters.error });
  classes.append(h("option", { value: "" }, `${texts.letters.error}: ${texts.worklist.all}`));
  const replayAll = h("button", { type: "button", class: "primary", disabled: true, onclick: () => replayShown() }, texts.letters.replayAll);
  const series = h("div", { class: "chips" });

  const filters = (): LetterQuery => ({ service: service.value, error: classes.value, series: of });

  async function read(): Promise<void> {
    note(address(["dead-letters"], { service: service.value, series: of }));
    fill(
      series,
      of && h("button", { type: "button", class: "chip", onclick: () => ((of = ""), void read()) }, `${texts.letters.ofSeries} ${of} ✕`),
    );
    try {
      const page = await api.letters(filters(), signal);
      found.textContent = texts.letters.found(page.total);
      replayAll.disabled = page.items.length === 0;
      know(page.items);
      fill(place, page.items.length ? table(page) : nothing());
    } catch (error) {
      if (!isAbort(error)) {
        replayAll.disabled = true;
        fill(place, failure(texts.letters.failed, error, () => void read()));
      }
    }
  }

  /** Error classes have no list of their own: those that came are offered. */
  function know(items: Letter[]): void {
    for (const { error_class: name } of items) {
      if (![...classes.options].some((option) => option.value === name)) {
        classes.append(h("option", { value: name }, name));
      }
    }
  }

  function nothing(): HTMLElement {
    return service.value || classes.value || of
      ? empty(texts.letters.nothingTitle, texts.letters.nothing)
      : empty(texts.letters.emptyTitle, texts.letters.empty);
  }

  function table(page: Page<Letter>): HTMLElement {
    const names = texts.letters;
    return h(
      "table",
      { class: "letters" },
      h(
        "thead",
        {},
        h("tr", {}, ...[names.service, names.error, names.reason, names.attempts, names.died].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, h("span", { class: "spoken" }, names.actions))),
      ),
      h("tbody", {}, ...page.items.map(row)),
    );
  }

  function row(letter: Letter): HTMLElement {
    const about = letter.series_instance_uid || letter.about || letter.queue;
    const busy = (work: () => Promise<void>) => async (event: Event) => {
      const button = event.currentTarget as HTMLButtonElement;
      button.disabled = true;
      try {
        await work();
      } catch (error) {
        say(reason(error));
      } finally {
        button.disabled = false;
      }
    };
    return h(
      "tr",
      {},
      h("td", { "data-label": texts.letters.service }, h("b", {}, words(letter.service || letter.queue.split(".")[0] || "")), h("small", {}, letter.queue)),
      h("td", { "data-label": texts.letters.error }, h("span", { class: "class" }, letter.error_class)),
      h(
        "td",
        { "data-label": texts.letters.reason, class: "reason" },
        letter.reason || texts.none,
        letter.series_instance_uid
          ? h("small", {}, h("a", { href: address(["series", letter.series_instance_uid]) }, texts.letters.series), ` ${letter.series_instance_uid}`)
          : h("small", {}, letter.about),
      ),
      h("td", { "data-label": texts.letters.attempts, class: "number" }, String(letter.attempts), letter.replays ? h("small", {}, `${letter.replays} × ${texts.letters.replay.toLowerCase()}`) : null),
      h("td", { "data-label": texts.letters.died }, h("time", { datetime: letter.dead_at, title: letter.dead_at }, age(letter.dead_at))),
      h(
        "td",
        { class: "row-actions" },
        h("button", { type: "button", "aria-label": texts.letters.replayOf(about), onclick: busy(() => replayOne(letter)) }, texts.letters.replay),
        may(session, "admin") &&
          h("button", { type: "button", class: "danger quiet", "aria-label": texts.letters.dropOf(about), onclick: busy(() => drop(letter)) }, texts.letters.drop),
      ),
    );
  }

  async function replayOne(letter: Letter): Promise<void> {
    const { replayed } = await api.replay({ handles: [letter.handle] });
    say(texts.letters.replayed(replayed));
    await read();
  }

  async function replayShown(): Promise<void> {
    replayAll.disabled = true;
    try {
      const wanted = Object.fromEntries(Object.entries(filters()).filter(([, value]) => value));
      const choice = Object.keys(wanted).length ? wanted : { all: true };
      const { matched } = await api.replay({ ...choice, dry_run: true });
      if (!matched) {
        say(texts.letters.noMatch);
      } else if (await confirm(texts.letters.askReplay(matched), texts.letters.askReplayNext, texts.letters.replay)) {
        const { replayed } = await api.replay(choice);
        say(texts.letters.replayed(replayed));
      }
    } catch (error) {
      say(reason(error));
    }
    await read();
  }

  async function drop(letter: Letter): Promise<void> {
    if (await confirm(texts.letters.askDrop, texts.letters.askDropNext, texts.letters.drop, true)) {
      await api.drop(letter);
      say(texts.letters.dropped);
      await read();
    }
  }

  service.addEventListener("change", () => void read());
  classes.addEventListener("change", () => void read());
  void read();
  return h(
    "section",
    { class: "view" },
    h("div", { class: "bar" }, h("h1", {}, texts.letters.title), found),
    h("p", { class: "lead" }, texts.letters.lead),
    h("div", { class: "filters" }, service, classes, series, replayAll),
    place,
  );
}
