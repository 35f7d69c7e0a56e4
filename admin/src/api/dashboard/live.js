// @ts-check
// What is known now: asked for every second, and at once when an event says that something has changed.
//
// If nobody answers, it is known since when. Views then say so instead of showing old numbers.

import { Problem, at, look } from "./api.js";
import { follow } from "./stream.js";

/** Between two looks, and never more than a fifth of the time for looking. */
const PACE_MS = 1_000;

/** Sentences say how long ago and how soon: they are asked for again after this. */
const EXPLAINED_MS = 5_000;

/** Events that are kept here. */
const EVENTS_MAX = 200;

/**
 * What is known. `place` says what the page is about, and what is asked for follows from it.
 * @type {any}
 */
export const known = {
  overview: null,
  identity: null,
  events: [],
  /** By name: `{status, trend, explanation, revisions, incidents}` of the service that is looked at. */
  service: null,
  /** Further things that a page asked for, by path. */
  pages: new Map(),
  /** When it was last answered, and since when it is not. */
  heard: 0,
  disconnected: null,
};

let place = { service: "", pages: /** @type {string[]} */ ([]) };
let changed = () => {};
let refused = (/** @type {Problem} */ _problem) => {};
let running = /** @type {null | {stop: () => void}} */ (null);
let soon = () => {};

/**
 * Begins to look. @param {() => void} onChange @param {(problem: Problem) => void} onRefused the token does not do any more
 */
export function begin(onChange, onRefused) {
  end();
  changed = onChange;
  refused = onRefused;
  let stopped = false;
  let hurry = () => {};
  soon = () => hurry();
  const stopEvents = follow(hear);
  const wake = () => !document.hidden && soon();
  document.addEventListener("visibilitychange", wake);
  running = {
    stop: () => {
      stopped = true;
      stopEvents();
      document.removeEventListener("visibilitychange", wake);
      hurry();
    },
  };
  (async () => {
    while (!stopped) {
      let hurried = false;
      const wait = new Promise((resolve) => {
        hurry = () => {
          hurried = true;
          resolve(undefined);
        };
      });
      const began = performance.now();
      if (!document.hidden) {
        await lookOnce();
        if (!stopped) {
          changed();
        }
      }
      const took = performance.now() - began;
      if (!hurried) {
        await Promise.race([wait, pause(Math.max(PACE_MS - took, took * 4))]);
      } else {
        // Something has changed while it was looked at: again, but not without end.
        await pause(50);
      }
    }
  })();
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Stops looking and forgets what was known. */
export function end() {
  running?.stop();
  running = null;
  Object.assign(known, { overview: null, identity: null, events: [], service: null, heard: 0, disconnected: null });
  known.pages.clear();
  place = { service: "", pages: [] };
}

/** Says what the page is about. @param {string} service @param {string[]} [pages] paths that are asked for when something happens */
export function attend(service, pages = []) {
  place = { service, pages };
  if (known.service?.name !== service) {
    known.service = service ? { name: service, stale: true } : null;
  }
  for (const path of known.pages.keys()) {
    if (!pages.includes(path)) {
      known.pages.delete(path);
    }
  }
  soon();
}

/** Looks again at once, at what changes seldom too. */
export function refresh() {
  if (known.service) {
    known.service.stale = true;
  }
  for (const page of known.pages.values()) {
    page.stale = true;
  }
  soon();
}

/** @param {any} event */
function hear(event) {
  known.events.unshift(event);
  known.events.length = Math.min(known.events.length, EVENTS_MAX);
  refresh();
}

async function lookOnce() {
  try {
    known.identity ??= await look("/v1/whoami");
    await Promise.all([lookAtAll(), lookAtService(place.service), ...place.pages.map(lookAtPage)]);
    known.heard = Date.now();
    known.disconnected = null;
  } catch (error) {
    if (error instanceof Problem && [401, 403, 429].includes(error.status)) {
      refused(error);
      return;
    }
    known.disconnected ??= known.heard || Date.now();
  }
}

async function lookAtAll() {
  known.overview = await look("/v1/overview");
}

/** @param {string} path */
async function lookAtPage(path) {
  const page = known.pages.get(path) ?? { stale: true };
  known.pages.set(path, page);
  if (page.stale) {
    page.stale = false;
    try {
      page.found = await look(path);
      page.problem = null;
    } catch (error) {
      page.stale = true;
      if (!(error instanceof Problem)) {
        throw error;
      }
      page.problem = error;
    }
  }
}

/** @param {string} name */
async function lookAtService(name) {
  const about = known.service;
  if (!name || about?.name !== name) {
    return;
  }
  const stale = about.stale;
  about.stale = false;
  const wordy = stale || Date.now() - (about.explained ?? 0) > EXPLAINED_MS;
  const after = about.trend ? `?after=${about.trend.to}` : "";
  const query = `service=${encodeURIComponent(name)}`;
  try {
    const [status, trend, explanation, revisions, incidents] = await Promise.all([
      look(at(name)),
      look(at(name, `/trend${after}`)),
      wordy ? look(at(name, "/explain")) : about.explanation,
      stale ? look(`/v1/revisions?${query}&limit=30`) : about.revisions,
      stale ? look(`/v1/rollbacks?${query}&limit=10`) : about.incidents,
    ]);
    Object.assign(about, { status, explanation, revisions, incidents, problem: null });
    about.trend = continued(about.trend, trend);
    about.explained = wordy ? Date.now() : about.explained;
  } catch (error) {
    about.stale = true;
    if (!(error instanceof Problem) || error.status !== 404) {
      throw error;
    }
    about.problem = error;
  }
}

/** Longest past that is shown, in seconds. */
export const PAST = 600;

/** What was known of the past and what has come since, by backend and second. @param {any} before @param {any} more */
export function continued(before, more) {
  const goesOn = before && more.from <= before.to + 1 && more.to >= before.to;
  const from = Math.max(goesOn ? before.from : more.from, more.to - PAST + 1);
  /** @type {Record<string, Map<number, any>>} */
  const backends = {};
  for (const [name, line] of Object.entries(more.backends)) {
    const points = new Map(goesOn ? before.backends[name] : []);
    for (const point of /** @type {any} */ (line).points) {
      points.set(point.second, point);
    }
    for (const second of points.keys()) {
      if (second < from) {
        points.delete(second);
      }
    }
    backends[name] = points;
  }
  return { from, to: more.to, backends };
}
