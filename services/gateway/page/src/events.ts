/** The gateway's server-sent events, read by `fetch`: any event name, and an end that can be told from a failure. */

import { ask, Problem, query } from "./api";
import type { Happening } from "./types";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15000;

export interface Listener {
  /** Called with the event's name and data. */
  event(name: string, data: Happening): void;
  /** Called when the stream stands, and when it does not. */
  connected?(stands: boolean): void;
}

/** Listen until the signal aborts. A stream that breaks is taken up again after the last event that came. */
export async function listen(scope: { series?: string; job?: string }, listener: Listener, signal: AbortSignal): Promise<void> {
  let last = "";
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const answer = await ask(`/events${query(scope)}`, {
        signal,
        cache: "no-store",
        headers: { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) },
      });
      listener.connected?.(true);
      wait = FIRST_WAIT_MS;
      for await (const event of read(answer)) {
        last = event.id || last;
        if (event.data) {
          listener.event(event.name, event.data);
        }
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429) {
        listener.connected?.(false);
        return; // asking again would get the same answer
      }
    }
    listener.connected?.(false);
    await pause(wait, signal);
    wait = Math.min(2 * wait, LONGEST_WAIT_MS);
  }
}

interface Read {
  id: string;
  name: string;
  data: Happening | null;
}

async function* read(answer: Response): AsyncGenerator<Read> {
  if (!answer.body) {
    return;
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      kept += value.replaceAll("\r\n", "\n");
      const blocks = kept.split("\n\n");
      kept = blocks.pop() ?? "";
      for (const block of blocks) {
        yield parse(block);
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

function parse(block: string): Read {
  const read: Read = { id: "", name: "message", data: null };
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const [, field, value] = /^([^:]+): ?(.*)$/.exec(line) ?? [];
    if (field === "id") {
      read.id = value ?? "";
    } else if (field === "event") {
      read.name = value ?? "";
    } else if (field === "data") {
      data.push(value ?? "");
    }
  }
  if (data.length) {
    read.data = JSON.parse(data.join("\n")) as Happening;
  } // else a comment, perhaps with the number to go on after
  return read;
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = window.setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      window.clearTimeout(timer);
      resolve();
    });
  });
}
