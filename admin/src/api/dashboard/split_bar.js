// @ts-check
// Which version takes which share.

import { h } from "./dom.js";
import { percent } from "./format.js";
import { mark } from "./icons.js";

/** @typedef {{name: string, version?: string, share: number, look: number}} Part */

/** Shares from weights. @param {Record<string, number>} weights @param {Record<string, number>} looks @returns {Part[]} */
export function parts(weights, looks) {
  const sum = Object.values(weights).reduce((sum, weight) => sum + weight, 0);
  return Object.entries(weights).map(([name, weight]) => ({
    name,
    share: sum > 0 ? weight / sum : 0,
    look: looks[name] ?? 0,
  }));
}

/** @param {Part[]} parts */
export const inWords = (parts) =>
  parts.map(({ name, share }) => `${name} ${percent(share)}`).join(", ");

/** The bar alone. @param {Part[]} parts @param {"small" | "large"} size @param {string} [label] */
export function splitBar(parts, size, label = "Split") {
  return h(
    `div.split.split-${size}`,
    { role: "img", "aria-label": `${label}: ${inWords(parts)}` },
    parts.map((part) =>
      h(
        `div.segment.series-${part.look}`,
        { key: part.name, vars: { "--share": String(part.share) }, class: part.share > 0 ? "" : "none" },
        size === "large" && part.share > 0 && h("span.inside", {}, h("span", {}, part.name), h("strong.number", {}, percent(part.share))),
      ),
    ),
  );
}

/** What the bar says, as a list. @param {Part[]} parts */
export function splitList(parts) {
  return h(
    "ul.split-list",
    {},
    parts.map((part) =>
      h(
        "li",
        { key: part.name, class: part.share > 0 ? "" : "none" },
        mark(part.look),
        h("span.name", {}, part.name),
        part.version && h("span.version", {}, part.version),
        h("strong.number", {}, percent(part.share)),
      ),
    ),
  );
}
