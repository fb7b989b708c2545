/** Calls of the gateway. An answer that is an error is a `Problem`, with the words of its problem document. */

import { texts } from "./texts";
import type { Job, Letter, Page, Replayed, Series, SeriesDetail, Session, UploadState } from "./types";

/** An answer that is an error (RFC 9457), or none at all (`status` 0). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }
}

/** What is done when nobody is signed in any more; set by whoever shows the page. */
export const whenSignedOut: { call: () => void } = { call: () => undefined };

/** Ask the gateway. The cookie of the session goes along; there is no other host. */
export async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") {
      throw error;
    }
    throw new Problem(0, texts.errors.unreachable, texts.errors.unreachableNext);
  }
  if (!answer.ok) {
    throw await problemOf(answer);
  }
  return answer;
}

/** Read an error's document; whatever the body is, this gives a problem. */
export async function problemOf(answer: Response): Promise<Problem> {
  const problem = readProblem(answer.status, answer.statusText, await answer.text());
  if (answer.status === 401) {
    whenSignedOut.call();
  }
  return problem;
}

/** Read an error's document out of its text. */
export function readProblem(status: number, statusText: string, body: string): Problem {
  let document: { title?: unknown; detail?: unknown } = {};
  try {
    document = JSON.parse(body) as typeof document;
  } catch {
    // A proxy between here and the gateway may have its own page of errors: then the status alone is said.
  }
  const title = typeof document.title === "string" ? document.title : `${status} ${statusText}`.trim();
  return new Problem(status, title, typeof document.detail === "string" ? document.detail : "");
}

async function get<Answer>(path: string, signal?: AbortSignal): Promise<Answer> {
  return (await (await ask(path, signal ? { signal } : {})).json()) as Answer;
}

async function post<Answer>(path: string, body: unknown): Promise<Answer> {
  const answer = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  return (text ? JSON.parse(text) : null) as Answer;
}

/** Write a query; what is empty is left out. */
export function query(parts: Record<string, string | number | undefined>): string {
  const written = new URLSearchParams();
  for (const [name, value] of Object.entries(parts)) {
    if (value !== undefined && value !== "") {
      written.set(name, String(value));
    }
  }
  const text = written.toString();
  return text ? `?${text}` : "";
}

export interface SeriesQuery {
  text?: string;
  modality?: string;
  status?: string;
  limit: number;
  offset: number;
}

export interface LetterQuery {
  service?: string;
  error?: string;
  series?: string;
}

export const api = {
  session: (): Promise<Session> => get("/session"),
  signIn: (secret: string): Promise<Session> => post("/session", { token: secret }),
  signOut: (): Promise<Response> => ask("/session", { method: "DELETE" }),

  listSeries: (wanted: SeriesQuery, signal?: AbortSignal): Promise<Page<Series>> =>
    get(`/series${query({ ...wanted })}`, signal),
  series: (uid: string, signal?: AbortSignal): Promise<SeriesDetail> =>
    get(`/series/${encodeURIComponent(uid)}`, signal),
  job: (id: string, signal?: AbortSignal): Promise<Job> => get(`/jobs/${encodeURIComponent(id)}`, signal),

  openUpload: (files: { name: string; size: number }[]): Promise<UploadState> => post("/uploads", { files }),
  upload: (id: string): Promise<UploadState> => get(`/uploads/${id}`),
  outcome: (id: string, signal: AbortSignal): Promise<UploadState> => get(`/uploads/${id}?limit=0`, signal),
  completeParts: (id: string, number: number, parts: { number: number; etag: string }[]): Promise<unknown> =>
    post(`/uploads/${id}/files/${number}/parts`, { parts }),
  completeUpload: (id: string): Promise<unknown> => ask(`/uploads/${id}/complete`, { method: "POST" }),
  abortUpload: (id: string): Promise<Response> => ask(`/uploads/${id}`, { method: "DELETE" }),

  letters: (wanted: LetterQuery, signal?: AbortSignal): Promise<Page<Letter>> =>
    get(`/dead-letters${query({ ...wanted })}`, signal),
  replay: (wanted: LetterQuery & { handles?: string[]; all?: boolean; dry_run?: boolean }): Promise<Replayed> =>
    post("/dead-letters/replay", wanted),
  drop: (letter: Letter): Promise<Response> =>
    ask(`/dead-letters/${encodeURIComponent(letter.queue)}/${encodeURIComponent(letter.handle)}`, { method: "DELETE" }),
};
