/**
 * Sending files: several at a time, each tried again where it broke off.
 *
 * An upload that the page was closed over goes on when the same files are chosen again: its identifier is kept in this
 * browser under a digest of the files' sizes, dates and places, never their names.
 */

import { api, Problem } from "../api";
import { isAbort } from "../notices";
import type { UploadFile, UploadState } from "../types";
import type { Picked } from "./picked";
import { put } from "./sending";

/** What the gateway takes in one upload. */
export const MOST_FILES = 20_000;
const AT_A_TIME = 4;
const TRIES = 5;
const FIRST_WAIT_MS = 500;
const KEPT = "voxelmill.upload.";

export type State = "waiting" | "sending" | "done" | "failed";

export interface Item {
  picked: Picked;
  state: State;
  sent: number;
  reason: string;
}

export class Upload {
  readonly items: Item[];
  readonly bytes: number;
  id = "";
  private plan: UploadState | null = null;
  private readonly stopping = new AbortController();

  constructor(
    picked: Picked[],
    private readonly changed: () => void,
    private readonly resuming: () => void,
  ) {
    this.items = picked.map((one): Item => ({ picked: one, state: "waiting", sent: 0, reason: "" }));
    this.bytes = picked.reduce((sum, one) => sum + one.file.size, 0);
  }

  get sent(): number {
    return this.items.reduce((sum, item) => sum + item.sent, 0);
  }

  of(state: State): number {
    return this.items.filter((item) => item.state === state).length;
  }

  /** Send everything that is not there yet; true when all is there and the upload is complete. */
  async send(): Promise<boolean> {
    const key = KEPT + (await digest(this.items));
    this.plan = this.plan ? await this.again() : await this.open(key);
    this.id = this.plan.upload_id;
    localStorage.setItem(key, this.id);
    for (const file of this.plan.files) {
      const item = this.items[file.number];
      if (item) {
        item.state = file.done ? "done" : "waiting";
        item.sent = file.done ? file.size : file.received;
      }
    }
    const waiting = this.plan.files.filter((file) => !file.done).map((file) => file.number);
    await Promise.all(Array.from({ length: AT_A_TIME }, () => this.work(waiting)));
    this.stopping.signal.throwIfAborted();
    if (this.of("failed")) {
      return false;
    }
    await api.completeUpload(this.id);
    localStorage.removeItem(key);
    return true;
  }

  /** Stop, and remove what has arrived. */
  async stop(): Promise<void> {
    this.stopping.abort();
    if (this.id) {
      await api.abortUpload(this.id);
      localStorage.removeItem(KEPT + (await digest(this.items)));
    }
  }

  private async open(key: string): Promise<UploadState> {
    const before = localStorage.getItem(key);
    if (before) {
      try {
        const state = await api.upload(before);
        if (state.state === "open" && state.files.length === this.items.length) {
          this.resuming();
          return state;
        }
      } catch (error) {
        if (!(error instanceof Problem) || error.status !== 404) {
          throw error;
        }
      }
      localStorage.removeItem(key); // it is finished, or was given up
    }
    // The name's ending says what kind of file it is; the name itself may be a patient's and stays here.
    return api.openUpload(this.items.map(({ picked: { file } }, index) => ({ name: `${index}${ending(file.name)}`, size: file.size })));
  }

  private async again(): Promise<UploadState> {
    return api.upload(this.id);
  }

  private async work(waiting: number[]): Promise<void> {
    for (let number = waiting.shift(); number !== undefined; number = waiting.shift()) {
      const item = this.items[number];
      const file = this.plan?.files.find((one) => one.number === number);
      if (item && file) {
        await this.sendOne(item, file);
      }
    }
  }

  private async sendOne(item: Item, file: UploadFile): Promise<void> {
    item.state = "sending";
    let wait = FIRST_WAIT_MS;
    for (let tries = 1; ; tries += 1) {
      try {
        await this.transfer(item, file);
        item.state = "done";
        item.sent = item.picked.file.size;
        this.changed();
        return;
      } catch (error) {
        if (isAbort(error)) {
          return;
        }
        if (tries === TRIES || !mayPass(error)) {
          item.state = "failed";
          item.reason = error instanceof Error ? error.message : String(error);
          this.changed();
          return;
        }
      }
      await new Promise((resolve) => window.setTimeout(resolve, wait));
      wait *= 2;
      const now = (await this.fresh(file.number)) ?? file;
      if (now.received > file.received) {
        [tries, wait] = [0, FIRST_WAIT_MS]; // it comes on, if slowly
      }
      file = now;
      item.sent = file.received;
    }
  }

  /** Where a file stands, with addresses that are good again; nothing if the gateway does not answer either. */
  private async fresh(number: number): Promise<UploadFile | null> {
    try {
      this.plan = await this.again(); // the addresses of the files that are still to come are good again too
      return this.plan.files.find((file) => file.number === number) ?? null;
    } catch (error) {
      if (error instanceof Problem) {
        return null;
      }
      throw error;
    }
  }

  private async transfer(item: Item, file: UploadFile): Promise<void> {
    const { signal } = this.stopping;
    const blob = item.picked.file;
    const told = (before: number) => (sent: number) => {
      item.sent = before + sent;
      this.changed();
    };
    if (file.done) {
      return;
    }
    if (file.parts) {
      const missing = file.parts.filter(({ start, length }) => start + length > file.received);
      const done: { number: number; etag: string }[] = [];
      for (const { number, start, length, url } of missing) {
        done.push({ number, etag: await put(url, {}, blob.slice(start, start + length), signal, told(start)) });
      }
      // Of parts that came before only the bucket knows the ETags: unnamed, those that it has are meant.
      await api.completeParts(this.id, file.number, missing.length === file.parts.length ? done : []);
    } else if (file.put) {
      const from = file.received;
      const range: Record<string, string> = from ? { "Content-Range": `bytes ${from}-${blob.size - 1}/${blob.size}` } : {};
      await put(file.put.url, { ...file.put.headers, ...range }, from ? blob.slice(from) : blob, signal, told(from));
    }
  }
}

/** Whether another try can have another end: no answer, a busy server, an address that is no longer good. */
function mayPass(error: unknown): boolean {
  return error instanceof Problem && (error.status === 0 || error.status >= 500 || [403, 408, 409, 416, 429].includes(error.status));
}

function ending(name: string): string {
  return /(\.nii\.gz|\.[a-z0-9]{1,8})$/i.exec(name)?.[0].toLowerCase() ?? "";
}

async function digest(items: Item[]): Promise<string> {
  const text = items.map(({ picked: { file, path } }) => `${path}\n${file.size}\n${file.lastModified}`).join("\n\n");
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
