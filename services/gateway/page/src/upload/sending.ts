/** One request with a body, and how much of it has gone: `fetch` does not tell. */

import { Problem, readProblem, whenSignedOut } from "../api";
import { texts } from "../texts";

/** Put a body; give the ETag of what it became, if the store says one. */
export function put(
  url: string,
  headers: Record<string, string>,
  body: Blob,
  signal: AbortSignal,
  progress: (sent: number) => void,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const stop = (): void => request.abort();
    signal.addEventListener("abort", stop);
    request.open("PUT", url);
    for (const [name, value] of Object.entries(headers)) {
      request.setRequestHeader(name, value);
    }
    request.upload.addEventListener("progress", (event) => progress(event.loaded));
    request.addEventListener("loadend", () => {
      signal.removeEventListener("abort", stop);
      if (request.status >= 200 && request.status < 300) {
        progress(body.size);
        resolve(request.getResponseHeader("ETag") ?? "");
        return;
      }
      if (signal.aborted) {
        reject(new DOMException("the upload was stopped", "AbortError"));
        return;
      }
      if (request.status === 401) {
        whenSignedOut.call();
      }
      reject(
        request.status
          ? readProblem(request.status, request.statusText, request.responseText)
          : new Problem(0, texts.errors.unreachable, texts.errors.unreachableNext),
      );
    });
    request.send(body);
  });
}
