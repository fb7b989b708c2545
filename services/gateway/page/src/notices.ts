/** What a view says when there is nothing to show, something failed, or something must be asked. */

import { Problem } from "./api";
import { h } from "./dom";
import { texts } from "./texts";

/** An empty state: what is so, and what to do. */
export function empty(title: string, next: string, ...actions: (HTMLElement | null)[]): HTMLElement {
  return h("div", { class: "notice" }, h("h2", {}, title), h("p", {}, next), h("div", { class: "actions" }, ...actions));
}

/** An error state, with a button that tries again. */
export function failure(title: string, error: unknown, again?: () => void): HTMLElement {
  return h(
    "div",
    { class: "notice error", role: "alert" },
    h("h2", {}, title),
    h("p", {}, reason(error)),
    h("div", { class: "actions" }, again ? h("button", { type: "button", onclick: again }, texts.again) : null),
  );
}

/** An error in one line. */
export function reason(error: unknown): string {
  return error instanceof Problem ? error.message : error instanceof Error ? error.message : String(error);
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Ask before something is done. Escape and the first button leave it. */
export function confirm(title: string, next: string, act: string, dangerous = false): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "confirm-title" },
      h("h2", { id: "confirm-title" }, title),
      h("p", {}, next),
      h(
        "form",
        { method: "dialog", class: "actions" },
        h("button", { value: "" }, texts.cancel),
        h("button", { value: "yes", class: dangerous ? "danger" : "primary" }, act),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const said = h("div", { class: "said", role: "status" });
let timer: number | undefined;

/** Say something at the foot of the page for a while; screen readers say it too. */
export function say(text: string): void {
  if (!said.isConnected) {
    document.body.append(said);
  }
  said.textContent = text;
  window.clearTimeout(timer);
  timer = window.setTimeout(() => said.replaceChildren(), 6000);
}
