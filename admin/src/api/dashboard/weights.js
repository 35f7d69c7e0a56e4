// @ts-check
// Sliders for the split of a service: what is given to the others is taken from stable.

import { h } from "./dom.js";
import { percent } from "./format.js";
import { mark } from "./icons.js";
import { looks } from "./series.js";

/** @typedef {{table: Record<string, number>, stable: string, sum: number}} Weights */

/** The split as it is, in parts of a hundred, or finer if it is finer. @param {any} status @returns {Weights} */
export function weightsOf(status) {
  const entries = Object.entries(status.weights);
  const now = entries.reduce((sum, [, weight]) => sum + weight, 0);
  const fits = (/** @type {number} */ sum) => entries.every(([, weight]) => ((weight * sum) / now) % 1 === 0);
  const sum = [100, 1_000, 10_000].find(fits) ?? 100;
  const weights = { table: /** @type {Record<string, number>} */ ({}), stable: status.stable, sum };
  for (const [name, weight] of entries) {
    weights.table[name] = Math.round((weight * sum) / now);
  }
  settle(weights, status.stable);
  return weights;
}

/** Stable has what is left; whoever was moved last gives way if nothing is. @param {Weights} weights @param {string} moved */
function settle(weights, moved) {
  const { table, stable, sum } = weights;
  const others = Object.keys(table).filter((name) => name !== stable);
  const given = () => others.reduce((given, name) => given + table[name], 0);
  if (moved === stable) {
    // What stable does not want goes to the others in proportion, or to the first.
    const wanted = sum - table[stable];
    const before = given();
    let left = wanted;
    for (const name of others) {
      table[name] = before > 0 ? Math.floor((table[name] * wanted) / before) : 0;
      left -= table[name];
    }
    if (others.length > 0) {
      const first = others.find((name) => table[name] > 0) ?? others[0];
      table[first] += left;
    } else {
      table[stable] = sum;
    }
    return;
  }
  const over = given() - sum;
  for (const name of others.filter((name) => name !== moved)) {
    const gives = Math.min(table[name], Math.max(0, given() - sum));
    table[name] -= over > 0 ? gives : 0;
  }
  table[stable] = sum - given();
}

/** @param {Weights} weights @param {number} sum */
function refine(weights, sum) {
  for (const name of Object.keys(weights.table)) {
    weights.table[name] = Math.round((weights.table[name] * sum) / weights.sum);
  }
  weights.sum = sum;
  settle(weights, Object.keys(weights.table).find((name) => name !== weights.stable) ?? weights.stable);
}

/** @param {Weights} weights @param {any} status @param {string} lease @param {(lease: string) => void} changed */
export function weightFields(weights, status, lease, changed) {
  const colours = looks(Object.keys(status.backends));
  return h(
    "div.weights",
    {},
    Object.entries(weights.table).map(([name, weight], index) => slider(weights, status, name, weight, colours[name], index === firstOther(weights), () => changed(lease))),
    h(
      "div.row",
      {},
      select("Steps of", String(weights.sum), [["100", "1 %"], ["1000", "0.1 %"], ["10000", "0.01 %"]], (sum) => {
        refine(weights, Number(sum));
        changed(lease);
      }),
      select("For", lease, [["", "until it is changed"], ["10m", "10 minutes"], ["1h", "1 hour"], ["24h", "1 day"]], changed),
    ),
  );
}

/** @param {Weights} weights */
const firstOther = (weights) => Math.max(0, Object.keys(weights.table).findIndex((name) => name !== weights.stable));

/** @param {Weights} weights @param {any} status @param {string} name @param {number} weight @param {number} look @param {boolean} first @param {() => void} changed */
function slider(weights, status, name, weight, look, first, changed) {
  const set = (/** @type {any} */ event) => {
    const wanted = Number(event.target.value);
    if (Number.isInteger(wanted) && wanted >= 0 && wanted <= weights.sum) {
      weights.table[name] = wanted;
      settle(weights, name);
      changed();
    }
  };
  const share = weight / weights.sum;
  return h(
    "div.slider",
    { key: name },
    h("span.slider-name", {}, mark(look), h("strong", {}, name), h("span.version", {}, status.backends[name].version), name === weights.stable && h("span.role.role-stable", {}, "stable")),
    h("input", {
      type: "range",
      class: `series-${look}`,
      min: "0",
      max: String(weights.sum),
      step: "1",
      value: String(weight),
      "data-first": first,
      "aria-label": `Share of ${name}`,
      "aria-valuetext": percent(share),
      vars: { "--share": String(share) },
      oninput: set,
    }),
    h("input", { type: "number", min: "0", max: String(weights.sum), step: "1", value: String(weight), "aria-label": `Weight of ${name}`, oninput: set }),
    h("output.number", {}, percent(share)),
  );
}

/** @param {string} text @param {string} value @param {string[][]} options @param {(value: string) => void} chosen */
function select(text, value, options, chosen) {
  return h(
    "label.field.inline",
    {},
    h("span", {}, text),
    h(
      "select",
      { onchange: (/** @type {any} */ event) => chosen(event.target.value) },
      options.map(([code, said]) => h("option", { value: code, selected: code === value }, said)),
    ),
  );
}
