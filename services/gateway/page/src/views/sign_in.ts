/** Signing in with an API key or a token, which becomes a cookie that no script can read. */

import { api, Problem } from "../api";
import { fill, h } from "../dom";
import { reason } from "../notices";
import { texts } from "../texts";
import type { Session } from "../types";

export function signIn(begin: (session: Session) => void): HTMLElement {
  const field = h("input", { id: "secret", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const button = h("button", { class: "primary" }, texts.signIn.button);
  const wrong = h("p", { class: "wrong", role: "alert" });

  async function send(event: Event): Promise<void> {
    event.preventDefault();
    fill(wrong);
    button.disabled = true;
    try {
      await api.signIn(field.value.trim());
      begin(await api.session());
    } catch (error) {
      const refused = error instanceof Problem && (error.status === 401 || error.status === 403);
      fill(wrong, refused ? texts.signIn.refused : reason(error));
      field.select();
    } finally {
      button.disabled = false;
    }
  }

  queueMicrotask(() => field.focus());
  return h(
    "form",
    { class: "sign-in", onsubmit: send },
    h("h1", {}, texts.signIn.title),
    h("p", {}, texts.signIn.lead),
    h("label", { for: "secret" }, texts.signIn.field),
    field,
    wrong,
    button,
    h("p", { class: "faint" }, texts.signIn.where),
  );
}
