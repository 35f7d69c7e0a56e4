// @ts-check
// The stream of events, read with `fetch`: an `EventSource` could not send the token.
//
// Whoever is cut off comes back and goes on after the last event they saw. A stream that is silent for
// longer than its heartbeats are apart is taken for dead. A page that nobody sees holds none: browsers allow a
// handful of connections for all of them together.

import { headers } from "./api.js";

/** Heartbeats come every 15 s. */
const SILENCE_MS = 40_000;

/** Before coming back: doubled each time, up to the last. */
const PAUSE_MS = [500, 10_000];

/**
 * Follows events until it is told to stop.
 * @param {(event: any) => void} heard
 * @returns {() => void} stops it
 */
export function follow(heard) {
  const stopped = new AbortController();
  run(heard, stopped.signal);
  return () => stopped.abort();
}

/** @param {(event: any) => void} heard @param {AbortSignal} stop */
async function run(heard, stop) {
  let last = "";
  let pause = PAUSE_MS[0];
  while (!stop.aborted) {
    await seen();
    const unseen = new AbortController();
    const hide = () => document.hidden && unseen.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      await read(last, AbortSignal.any([stop, unseen.signal]), (id, event) => {
        last = id || last;
        pause = PAUSE_MS[0];
        heard(event);
      });
    } catch {
      // Whoever shows things says that nothing is heard; here it is only tried again.
    }
    document.removeEventListener("visibilitychange", hide);
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, PAUSE_MS[1]);
  }
}

/** Until somebody sees the page. */
async function seen() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

/** @param {string} last @param {AbortSignal} stop @param {(id: string, event: any) => void} heard */
async function read(last, stop, heard) {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENCE_MS);
  try {
    const answer = await fetch("/v1/events", {
      headers: headers(last ? { "last-event-id": last } : {}),
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.any([stop, silent.signal]),
    });
    if (!answer.ok || !answer.body) {
      throw new Error(`the stream answered ${answer.status}`);
    }
    const take = messages(heard);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENCE_MS);
      take(value);
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Puts pieces together again. @param {(id: string, event: any) => void} heard */
export function messages(heard) {
  let rest = "";
  return (/** @type {string} */ piece) => {
    const blocks = (rest + piece).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const fields = { id: "", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        const name = line.slice(0, colon);
        if (name === "id" || name === "data") {
          fields[name] += line.slice(colon + 1).trim();
        }
      }
      if (fields.data) {
        heard(fields.id, JSON.parse(fields.data));
      }
    }
  };
}
