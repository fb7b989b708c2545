/** Fetching a file as a whole, with what has come so far. */

import { ask } from "../api";

export async function download(url: string, signal: AbortSignal, progress: (received: number) => void): Promise<ArrayBuffer> {
  const answer = await ask(url, { signal });
  if (!answer.body) {
    return answer.arrayBuffer();
  }
  const pieces: Uint8Array[] = [];
  let received = 0;
  for await (const piece of chunks(answer.body)) {
    pieces.push(piece);
    received += piece.byteLength;
    progress(received);
  }
  const whole = new Uint8Array(received);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.byteLength;
  }
  return whole.buffer;
}

async function* chunks(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    yield value;
  }
}
