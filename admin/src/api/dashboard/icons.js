// @ts-check
// Small drawings. Each state has a shape of its own, so that none is told by colour alone.

import { h } from "./dom.js";
import { DASHES, sign } from "./series.js";

const SHAPES = {
  ok: ["M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13z", "m5 8.2 2.1 2.1L11 6.2"],
  note: ["M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13z", "M8 7.4v3.4M8 5.1v.1"],
  warn: ["M8 1.8 14.8 13.8H1.2z", "M8 6.2v3.4M8 11.6v.1"],
  bad: ["M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3z", "m5.8 5.8 4.4 4.4m0-4.4-4.4 4.4"],
  unknown: ["M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13z", "M6.3 6.3c0-2 3.4-2 3.4 0 0 1.3-1.7 1.3-1.7 2.7M8 11.3v.1"],
  back: ["M6.2 3 2.5 6.7l3.7 3.7", "M2.8 6.7h6.4a4 4 0 0 1 0 8H7"],
  search: ["M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9z", "m10.3 10.3 3.4 3.4"],
  services: ["M2 4h12M2 8h12", "M2 12h7"],
  activity: ["M1.5 8.5h3l2-5 3 9 2-4h3", ""],
  incidents: ["M8 1.8 14.8 13.8H1.2z", "M8 6.2v3.4M8 11.6v.1"],
  sun: ["M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6z", "M8 1.2v1.6M8 13.2v1.6M1.2 8h1.6M13.2 8h1.6M3.2 3.2l1.1 1.1M11.7 11.7l1.1 1.1M12.8 3.2l-1.1 1.1M4.3 11.7l-1.1 1.1"],
  moon: ["M13.5 9.8A6 6 0 0 1 6.2 2.5a6 6 0 1 0 7.3 7.3z", ""],
  system: ["M2 3h12v8H2z", "M6 14h4M8 11v3"],
  out: ["M6.5 2.5h-4v11h4", "M6 8h8m-3-3 3 3-3 3"],
};

/** @param {keyof typeof SHAPES} name @param {string} [label] what it says; without one it is decoration */
export function icon(name, label) {
  const [first, second] = SHAPES[name];
  const said = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  return h(
    "svg:svg",
    { class: `icon icon-${name}`, viewBox: "0 0 16 16", ...said },
    h("svg:path", { d: first }),
    second && h("svg:path", { d: second, class: "second" }),
  );
}

/** The sign of a backend. @param {number} look */
export function mark(look) {
  return h(
    "svg:svg",
    { class: `mark series-${look}`, viewBox: "0 0 10 10", "aria-hidden": "true" },
    h("svg:path", { d: sign(look) }),
  );
}

/** A line of a chart, in short. @param {number} look @param {boolean} faint */
export function swatch(look, faint) {
  return h(
    "svg:svg",
    { class: `swatch series-${look}`, viewBox: "0 0 26 10", "aria-hidden": "true" },
    h("svg:path", { class: faint ? "line-faint" : "line", d: "M0 5H26", "stroke-dasharray": DASHES[look] }),
    !faint && h("svg:path", { class: "swatch-sign", transform: "translate(9 1) scale(0.8)", d: sign(look) }),
  );
}

export function logo() {
  return h(
    "svg:svg",
    { class: "logo", viewBox: "0 0 32 20", "aria-hidden": "true" },
    h("svg:path", { class: "logo-stable", d: "M2 10h8c6 0 6-7 12-7h5" }),
    h("svg:path", { class: "logo-canary", d: "M12 10.5c5 .8 5 6.5 10 6.5h5" }),
    h("svg:circle", { class: "logo-dot", cx: "28", cy: "3", r: "2.4" }),
  );
}
