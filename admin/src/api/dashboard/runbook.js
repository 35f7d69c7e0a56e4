// @ts-check
// A run of a runbook: its steps, what each found, and the one that somebody ticks.

import { beginRunbook, can, stopRunbook, tickStep } from "./actions.js";
import { h } from "./dom.js";
import { ago } from "./format.js";
import { icon } from "./icons.js";

const STEPS = {
  done: { icon: /** @type {const} */ ("ok"), text: "done" },
  skipped: { icon: /** @type {const} */ ("note"), text: "passed over" },
  running: { icon: /** @type {const} */ ("warn"), text: "now" },
  pending: { icon: /** @type {const} */ ("unknown"), text: "to come" },
};

/** @param {any} status of the service */
export function runbook(status) {
  const run = status.runbook;
  if (!run) {
    return [h("p.quiet", {}, "No runbook was carried out yet."), actions(status)];
  }
  return [
    h(
      "p.rollout-head",
      {},
      h("strong", {}, run.runbook),
      h("span.role", {}, icon(run.status === "completed" ? "ok" : run.status === "waiting" ? "warn" : "note"), run.status),
      h("span.quiet", {}, `began ${ago(run.began)}, by ${run.trigger ? `its trigger: ${run.trigger}` : run.by}`),
    ),
    h("ol.run-steps", { "aria-label": "Steps of the runbook" }, run.steps.map((/** @type {any} */ one) => step(run, one))),
    h("p.waits", {}, run.ended ? run.ended.reason : run.waits_for ? `Waits: ${run.waits_for.reason}` : ""),
    actions(status),
  ];
}

/** @param {any} run @param {any} one */
function step(run, one) {
  const looks = STEPS[/** @type {"done"} */ (one.status)];
  const current = !run.ended && one.number === run.step;
  const times = [one.took, one.duration && `planned ${one.duration}`, one.overdue && "too long"].filter(Boolean).join(", ");
  return h(
    "li",
    { key: `step ${one.number}`, class: `run-${one.status}`, "aria-current": current ? "step" : null },
    h("p.run-step", {}, icon(looks.icon), h("strong", {}, `${one.number}. ${one.name}`), h("span.aside", {}, looks.text), h("span.quiet", { class: one.overdue ? "level-bad" : "" }, times)),
    one.findings.length > 0 && h("ul.findings", {}, one.findings.map((/** @type {string} */ text, /** @type {number} */ index) => h("li", { key: `${index} ${text}` }, text))),
  );
}

/** @param {any} status */
function actions(status) {
  if (!can("rollback")) {
    return null;
  }
  const run = status.runbook;
  if (!run || run.ended) {
    return h("div.row", {}, h("button", { onclick: () => beginRunbook(status.name) }, "Carry out a runbook…"));
  }
  return h(
    "div.row",
    {},
    run.waits_for && h("button", { onclick: () => tickStep(status.name, run) }, "Tick…"),
    h("button", { onclick: () => stopRunbook(status.name) }, "Stop…"),
  );
}
