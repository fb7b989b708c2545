/** Making elements. Text is always text: nothing on this page is ever parsed as HTML. */

export type Child = Node | string | number | null | undefined | false;

type Handlers = { [Name in keyof HTMLElementEventMap as `on${Name}`]?: (event: HTMLElementEventMap[Name]) => unknown };

export type Attributes = Handlers & Record<string, unknown>;

/** Make an element: functions become listeners, `true` an empty attribute, `false` and null none at all. */
export function h<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: (Child | Child[])[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(key.slice(2), value as EventListener);
    } else if (value === true) {
      element.setAttribute(key, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(key, String(value));
    }
  }
  fill(element, ...children);
  return element;
}

/** Put children into an element, in place of those that it has. */
export function fill(element: Element, ...children: (Child | Child[])[]): void {
  element.replaceChildren(
    ...children
      .flat()
      .filter((child): child is Node | string | number => child !== null && child !== undefined && child !== false)
      .map((child) => (child instanceof Node ? child : String(child))),
  );
}

/** Text that only a screen reader says. */
export function spoken(text: string): HTMLElement {
  return h("span", { class: "spoken" }, text);
}

/** Call the last of many calls, once, so many milliseconds after the first of them. */
export function soon(milliseconds: number, work: () => void): { (): void; cancel(): void } {
  let timer: number | undefined;
  const ask = (): void => {
    timer ??= window.setTimeout(() => {
      timer = undefined;
      work();
    }, milliseconds);
  };
  ask.cancel = (): void => {
    window.clearTimeout(timer);
    timer = undefined;
  };
  return ask;
}

/** Call the last of many calls when there were none for so many milliseconds. */
export function whenQuiet(milliseconds: number, work: () => void): () => void {
  let timer: number | undefined;
  return () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(work, milliseconds);
  };
}
