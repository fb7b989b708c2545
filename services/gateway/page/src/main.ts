/** The page: who is there, which view is open, and the frame around it. */

import { api, Problem, whenSignedOut } from "./api";
import { may, type View } from "./context";
import { fill, h } from "./dom";
import { failure } from "./notices";
import { place } from "./router";
import { texts } from "./texts";
import type { RoleName, Session } from "./types";
import { letters } from "./views/letters";
import { series } from "./views/series";
import { signIn } from "./views/sign_in";
import { upload } from "./views/upload";
import { worklist } from "./views/worklist";

const VIEWS: Record<string, { view: View; role: RoleName; title: string; everywhere?: boolean }> = {
  "": { view: worklist, role: "viewer", title: texts.worklist.title },
  series: { view: series, role: "viewer", title: texts.worklist.title },
  upload: { view: upload, role: "uploader", title: texts.upload.title },
  "dead-letters": { view: letters, role: "operator", title: texts.letters.title, everywhere: true },
};
/** Dead letters are of the whole installation: they are for operators who see every project. */
function isOpenTo(session: Session, entry: { role: RoleName; everywhere?: boolean }): boolean {
  return may(session, entry.role) && (!entry.everywhere || session.projects === null);
}

const NAVIGATION = ["", "upload", "dead-letters"];

let open = new AbortController();
let session: Session | null = null;
const main = h("main", { id: "content", tabindex: -1 });
const header = h("header");

function frame(): void {
  const [here = ""] = place().path;
  fill(
    header,
    h("a", { class: "skip", href: "#content", onclick: toContent }, texts.skip),
    h("a", { class: "brand", href: "#/" }, texts.name),
    session &&
      h(
        "nav",
        { "aria-label": texts.nav.label },
        ...NAVIGATION.flatMap((name) => {
          const entry = VIEWS[name];
          const current = name === here || (name === "" && here === "series");
          return entry && session && isOpenTo(session, entry)
            ? [h("a", { href: `#/${name}`, "aria-current": current ? "page" : null }, entry.title)]
            : [];
        }),
      ),
    session &&
      h(
        "div",
        { class: "who" },
        h("span", { title: session.role }, session.who),
        session.auth === "on" && h("button", { type: "button", class: "quiet", onclick: leave }, texts.nav.signOut),
      ),
  );
}

function toContent(event: Event): void {
  event.preventDefault(); // the part after # is the view
  main.focus();
}

async function leave(): Promise<void> {
  await api.signOut();
  session = null;
  show();
}

/** Show the view that the address names; the one before is ended. */
function show(): void {
  open.abort();
  open = new AbortController();
  frame();
  const { path, parameters } = place();
  if (!session) {
    document.title = `${texts.signIn.title} · ${texts.name}`;
    fill(main, signIn((signedIn) => begin(signedIn)));
    return;
  }
  const entry = VIEWS[path[0] ?? ""];
  document.title = `${entry?.title ?? texts.errors.noView} · ${texts.name}`;
  if (!entry) {
    fill(main, h("div", { class: "notice" }, h("h2", {}, texts.errors.noView), h("a", { href: "#/" }, texts.errors.toWorklist)));
  } else if (!isOpenTo(session, entry)) {
    fill(main, failure(texts.errors.notAllowed, new Error(texts.errors.notAllowedNext(entry.role, entry.everywhere ?? false))));
  } else {
    fill(main, entry.view({ path: path.slice(1), parameters, session, signal: open.signal }));
  }
}

function begin(signedIn: Session): void {
  session = signedIn;
  show();
}

async function start(): Promise<void> {
  fill(document.body, header, main);
  fill(main, h("p", { class: "notice" }, texts.loading));
  try {
    session = await api.session();
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) {
      fill(main, failure(texts.errors.unreachable, error, () => void start()));
      return;
    }
  }
  whenSignedOut.call = (): void => {
    if (session) {
      session = null;
      show();
    }
  };
  show();
}

window.addEventListener("hashchange", () => {
  show();
  window.scrollTo(0, 0);
  main.focus({ preventScroll: true });
});
void start();
