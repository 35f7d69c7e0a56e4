// @ts-check
// The charts of a service: requests, failures and times of each backend.

import { figure } from "./chart.js";
import { h } from "./dom.js";
import { percent, rate, time } from "./format.js";
import { redraw } from "./page.js";

/** Failures of so many seconds are taken together, since one second may have a handful of requests. */
const WINDOW = 5;

/** @typedef {{from: number, to: number, backends: Record<string, Map<number, any>>}} Trend */

/** How far back charts go, in seconds. */
const PASTS = { "10 min": 600, "2 min": 120 };

let past = PASTS["10 min"];

/** @param {Trend} trend @param {Record<string, number>} looks @param {any[]} revisions */
export function charts(trend, looks, revisions) {
  const names = Object.keys(trend.backends);
  const about = { from: trend.from, to: trend.to, marks: marks(revisions), past };
  const busy = names.filter((name) => trend.backends[name].size > 0 || names.length <= 2);
  return [
    h("div.tabs.pasts", { role: "group", "aria-label": "How far back" }, Object.entries(PASTS).map(([text, seconds]) => tab(text, seconds))),
    h(
      "div.charts",
      {},
      figure({ ...about, ...requests(trend, busy, looks) }),
      figure({ ...about, ...failures(trend, busy, looks) }),
      figure({ ...about, ...times(trend, busy, looks) }),
    ),
  ];
}

/** @param {string} text @param {number} seconds */
function tab(text, seconds) {
  const go = () => {
    past = seconds;
    redraw();
  };
  return h("button.tab", { "aria-pressed": String(past === seconds), onclick: go }, text);
}

/** Changes, so that one sees what came before and after. @param {any[]} revisions */
function marks(revisions) {
  return revisions.map((revision) => ({
    second: Math.floor(new Date(revision.at).getTime() / 1000),
    label: `revision ${revision.revision}: ${revision.action}`,
    bad: revision.action === "rollback" || revision.action === "block",
  }));
}

/** The values of every second. @param {Trend} trend @param {string} name @param {(point: any) => number | null} read @param {number | null} none */
function values(trend, name, read, none) {
  const values = [];
  for (let second = trend.from; second <= trend.to; second += 1) {
    const point = trend.backends[name].get(second);
    values.push(point ? read(point) : none);
  }
  return values;
}

/** @param {Trend} trend @param {string[]} names @param {Record<string, number>} looks */
function requests(trend, names, looks) {
  const lines = names.map((name) => ({
    label: name,
    look: looks[name],
    values: calmed(values(trend, name, (point) => point.requests, 0)),
  }));
  return {
    id: "chart-requests",
    title: "Requests a second",
    lines,
    least: 4,
    text: rate,
    now: names.map((name) => rate(pace(trend, name).requests)),
  };
}

/** Over ten minutes there are more seconds than there is room for: means of a few. @param {(number | null)[]} values */
function calmed(values) {
  if (past <= PASTS["2 min"]) {
    return values;
  }
  let sum = 0;
  return values.map((value, index) => {
    sum += (value ?? 0) - (values[index - WINDOW] ?? 0);
    return sum / Math.min(WINDOW, index + 1);
  });
}

/** @param {Trend} trend @param {string[]} names @param {Record<string, number>} looks */
function failures(trend, names, looks) {
  const share = (/** @type {string} */ name) => {
    const all = values(trend, name, (point) => point.requests, 0);
    const bad = values(trend, name, (point) => point.failures, 0);
    let [requests, failures] = [0, 0];
    return all.map((count, index) => {
      requests += /** @type {number} */ (count) - (all[index - WINDOW] ?? 0);
      failures += /** @type {number} */ (bad[index]) - (bad[index - WINDOW] ?? 0);
      // Of a backend that gets nothing any more, older seconds would still fall out of the window one by one.
      const isServing = /** @type {number} */ (count) + (all[index - 1] ?? 0) > 0;
      return isServing && requests > 0 ? failures / requests : null;
    });
  };
  return {
    id: "chart-errors",
    title: "Errors",
    lines: names.map((name) => ({ label: name, look: looks[name], values: share(name) })),
    least: 0.02,
    text: percent,
    now: names.map((name) => {
      const { requests, failures } = pace(trend, name);
      return requests > 0 ? percent(failures / requests) : "–";
    }),
  };
}

/** @param {Trend} trend @param {string[]} names @param {Record<string, number>} looks */
function times(trend, names, looks) {
  const of = (/** @type {string} */ name, /** @type {"p50_ms" | "p99_ms"} */ which) =>
    values(trend, name, (point) => point[which], null);
  const lines = names.flatMap((name) => [
    { label: `${name} p99`, look: looks[name], values: of(name, "p99_ms") },
    { label: `${name} p50`, look: looks[name], values: of(name, "p50_ms"), faint: true },
  ]);
  return {
    id: "chart-times",
    title: "Response time",
    lines,
    least: 2,
    text: time,
    now: names.flatMap((name) => {
      const { p50, p99 } = pace(trend, name);
      return [time(p99), time(p50)];
    }),
  };
}

/** The last seconds of a backend: a mean of requests and failures, the last known times. @param {Trend} trend @param {string} name */
export function pace(trend, name) {
  /** @type {any[]} */
  const points = [];
  const seconds = Math.min(WINDOW, trend.to - trend.from + 1);
  for (let second = trend.to - seconds + 1; second <= trend.to; second += 1) {
    const point = trend.backends[name]?.get(second);
    if (point) {
      points.push(point);
    }
  }
  const sum = (/** @type {"requests" | "failures"} */ which) => points.reduce((sum, point) => sum + point[which], 0);
  const last = points.at(-1);
  return {
    requests: seconds > 0 ? sum("requests") / seconds : 0,
    failures: seconds > 0 ? sum("failures") / seconds : 0,
    p50: last?.p50_ms,
    p99: last?.p99_ms,
  };
}
