// @ts-check
// Lines over the last ten minutes, a point for every second.
//
// Drawn as SVG in units of seconds, so that it fits any width. Lines are drawn one second ahead, and glide
// to their place until the next one comes. Values at any second are shown under a pointer, or by arrow keys.

import { h } from "./dom.js";
import { PAST } from "./live.js";
import { redraw } from "./page.js";
import { DASHES } from "./series.js";
import { swatch } from "./icons.js";
import { clock } from "./format.js";

const HEIGHT = 100;

/** The second that is looked at, in all charts at once. @type {number | null} */
let looked = null;

/**
 * @typedef {{label: string, look: number, values: (number | null)[], faint?: boolean}} Line
 *   values of each second from `from` on; null where there is none
 * @typedef {{second: number, label: string, bad: boolean}} Mark_
 * @typedef {{title: string, id: string, from: number, to: number, lines: Line[], marks: Mark_[],
 *   text: (value: number) => string, least: number, now: string[], past?: number}} Chart
 */

/** @param {Chart} chart */
export function figure(chart) {
  const past = chart.past ?? PAST;
  const top = scale(chart);
  const shown = looked !== null && looked >= chart.from && looked <= chart.to ? looked : null;
  return h(
    "figure.chart",
    { key: chart.id, id: chart.id },
    h("figcaption", {}, h("span.chart-title", {}, chart.title), legend(chart, shown)),
    h(
      "div.plot",
      {},
      h("span.plot-top", { "aria-hidden": "true" }, chart.text(top)),
      h("span.plot-middle", { "aria-hidden": "true" }, chart.text(top / 2)),
      picture(chart, top, past, shown),
      handle(chart, shown, past),
      shown !== null && pointer(chart, shown, past),
    ),
    h("div.plot-times", { "aria-hidden": "true" }, times(chart, past)),
  );
}

/** @param {Chart} chart @param {number} past */
function times(chart, past) {
  const at = (/** @type {number} */ part) => clock((chart.to - past * (1 - part)) * 1000).slice(0, past > 300 ? 5 : 8);
  return [0, 0.25, 0.5, 0.75, 1].map((part) => h("span", {}, at(part)));
}

/** A round number above all values. @param {Chart} chart */
function scale(chart) {
  let most = chart.least;
  for (const line of chart.lines) {
    for (const value of line.values) {
      if (value !== null && value > most) {
        most = value;
      }
    }
  }
  const unit = 10 ** Math.floor(Math.log10(most));
  const step = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * unit >= most) ?? 10;
  return step * unit;
}

/** @param {Chart} chart @param {number} top @param {number} past @param {number | null} shown */
function picture(chart, top, past, shown) {
  const start = chart.to - past;
  return h(
    "svg:svg",
    { class: "plot-picture", viewBox: `0 0 ${past} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    [0.5].map((at) => h("svg:line", { class: "gridline", x1: 0, x2: past, y1: HEIGHT * at, y2: HEIGHT * at })),
    h(
      "svg:g",
      { class: "glide", vars: { "--shift": `${-(start - epoch)}px` } },
      chart.lines.map((line) => path(chart, line, top)),
      chart.marks
        .filter(({ second }) => second >= start && second <= chart.to)
        .map(({ second, bad }) =>
          h("svg:line", { key: `mark ${second}`, class: bad ? "moment moment-bad" : "moment", x1: second - epoch, x2: second - epoch, y1: 0, y2: HEIGHT }),
        ),
      shown !== null && h("svg:line", { key: "looked", class: "looked", x1: shown - epoch, x2: shown - epoch, y1: 0, y2: HEIGHT }),
    ),
  );
}

/** Seconds are drawn from here on: numbers stay small. */
const epoch = Math.floor(Date.now() / 1000);

/** @param {Chart} chart @param {Line} line @param {number} top */
function path(chart, line, top) {
  let d = "";
  let open = false;
  let area = "";
  let began = 0;
  line.values.forEach((value, index) => {
    const x = chart.from + index - epoch;
    if (value === null) {
      area += open ? `L${x - 1} ${HEIGHT}L${began} ${HEIGHT}Z` : "";
      open = false;
      return;
    }
    const y = (HEIGHT - Math.min(1, value / top) * (HEIGHT - 2) - 1).toFixed(1);
    // A second alone is a short line, since a point has no width.
    d += open ? `L${x} ${y}` : `M${x} ${y}h0.8`;
    area += open ? `L${x} ${y}` : `M${x} ${y}`;
    began = open ? began : x;
    open = true;
  });
  const last = chart.from + line.values.length - 1 - epoch;
  area += open ? `L${last} ${HEIGHT}L${began} ${HEIGHT}Z` : "";
  const kind = line.faint ? "line-faint" : "line";
  return [
    !line.faint && h("svg:path", { key: `area ${line.label}`, class: `area series-${line.look}`, d: area }),
    h("svg:path", { key: `line ${line.label}`, class: `${kind} series-${line.look}`, d, "stroke-dasharray": DASHES[line.look] }),
  ];
}

/** What is shown under the pointer: it moves along with arrow keys. @param {Chart} chart @param {number | null} shown @param {number} past */
function handle(chart, shown, past) {
  const second = shown ?? chart.to;
  const look = (/** @type {number | null} */ second) => {
    looked = second === null ? null : Math.max(chart.from, Math.min(chart.to, second));
    redraw();
  };
  return h("div.plot-handle", {
    tabindex: "0",
    role: "slider",
    "aria-label": `${chart.title}: second`,
    "aria-valuemin": String(chart.from),
    "aria-valuemax": String(chart.to),
    "aria-valuenow": String(second),
    "aria-valuetext": `${clock(second * 1000)}: ${inWords(chart, second)}`,
    onpointermove: (/** @type {any} */ event) => {
      const box = event.currentTarget.getBoundingClientRect();
      look(Math.round(chart.to - past + (past * (event.clientX - box.left)) / box.width));
    },
    onpointerleave: () => look(null),
    onblur: () => look(null),
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: chart.from - second, End: chart.to - second };
      const step = steps[/** @type {"End"} */ (event.key)];
      if (step !== undefined) {
        event.preventDefault();
        look(second + step);
      } else if (event.key === "Escape" && looked !== null) {
        look(null);
      }
    },
  });
}

/** @param {Chart} chart @param {Line} line @param {number} second */
function valueAt(chart, line, second) {
  const value = line.values[second - chart.from];
  return value === null || value === undefined ? "–" : chart.text(value);
}

/** @param {Chart} chart @param {number} second */
const inWords = (chart, second) => chart.lines.map((line) => `${line.label} ${valueAt(chart, line, second)}`).join(", ");

/** @param {Chart} chart @param {number | null} shown */
function legend(chart, shown) {
  return h(
    "ul.legend",
    {},
    chart.lines.map((line, index) =>
      h(
        "li",
        { key: line.label, class: line.faint ? "faint" : "" },
        swatch(line.look, !!line.faint),
        h("span", {}, line.label),
        h("strong.number", { "data-live": true }, shown === null ? chart.now[index] : valueAt(chart, line, shown)),
      ),
    ),
  );
}

/** @param {Chart} chart @param {number} shown @param {number} past */
function pointer(chart, shown, past) {
  const part = 1 - (chart.to - shown) / past;
  const note = chart.marks.filter(({ second }) => Math.abs(second - shown) <= 2).map(({ label }) => label);
  return h(
    "div.plot-note",
    { class: part > 0.5 ? "left" : "", vars: { "--at": String(part) }, "aria-hidden": "true" },
    h("span", {}, clock(shown * 1000)),
    note.length > 0 && h("span", {}, ` · ${note.join(", ")}`),
  );
}
