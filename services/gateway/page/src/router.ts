/** Where the page is: what follows `#` in its address. Nothing about a patient is ever written there. */

export interface Place {
  path: string[];
  parameters: URLSearchParams;
}

export function place(): Place {
  const [path = "", parameters = ""] = window.location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), parameters: new URLSearchParams(parameters) };
}

export function address(path: string[], parameters: Record<string, string | undefined> = {}): string {
  const written = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value) {
      written.set(name, value);
    }
  }
  const text = written.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Note a change of the view in the address, without making the view anew. */
export function note(to: string): void {
  window.history.replaceState(null, "", to);
}

export function go(to: string): void {
  window.location.hash = to;
}
