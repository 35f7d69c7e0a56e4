// @ts-check
// What the judge saw, and how close it is to a rollback.

import { h } from "./dom.js";
import { count, percent } from "./format.js";
import { icon, mark } from "./icons.js";

/** The bar: full is a rollback. @param {number} evidence @param {string} about @param {"small" | "large"} size */
export function meter(evidence, about, size) {
  const level = evidence >= 1 ? "bad" : evidence >= 0.5 ? "warn" : "calm";
  const said = `${evidence.toFixed(2)} of 1`;
  return h(
    `div.meter.meter-${size}`,
    {
      class: `meter-${level}`,
      role: "meter",
      "aria-label": `Evidence against ${about}`,
      "aria-valuemin": "0",
      "aria-valuemax": "1",
      "aria-valuenow": evidence.toFixed(3),
      "aria-valuetext": said,
    },
    h("div.meter-fill", { vars: { "--share": String(Math.min(1, evidence)) } }),
    size === "large" && [0.25, 0.5, 0.75].map((at) => h("div.meter-tick", { vars: { "--at": String(at) } })),
  );
}

const VERDICTS = {
  continue: { icon: /** @type {const} */ ("ok"), text: "nothing against it" },
  hold: { icon: /** @type {const} */ ("warn"), text: "holds" },
};

/** What a verdict does, by `on_failure`. */
const DOES = { rollback: "rolls back", hold: "holds and pages", notify: "only tells" };

/** What the judges of all watched backends think. @param {any} status of the service @param {Record<string, number>} looks */
export function judges(status, looks) {
  const watched = Object.entries(status.judge);
  if (watched.length === 0) {
    return h(
      "p.quiet",
      {},
      "No version is on trial: the judge watches once a canary has weight, and after a switch or promote.",
    );
  }
  return watched.map(([name, judge]) =>
    h("div.judge", { key: name }, head(name, judge, status, looks), judge.judges.map((/** @type {any} */ one) => reading(one))),
  );
}

/** @param {string} name @param {any} judge @param {any} status @param {Record<string, number>} looks */
function head(name, judge, status, looks) {
  const version = status.backends[name]?.version;
  const does = DOES[/** @type {"hold"} */ (judge.on_failure)];
  const verdict =
    judge.verdict === "rollback"
      ? { icon: "bad", text: does }
      : (VERDICTS[/** @type {"hold"} */ (judge.verdict)] ?? { icon: "unknown", text: "has seen no requests yet" });
  return [
    h(
      "div.judge-head",
      {},
      mark(looks[name]),
      h("strong", {}, name),
      h("span.version", {}, version),
      h("span.verdict", {}, icon(/** @type {any} */ (verdict.icon)), verdict.text),
      h("span.evidence.number", { "data-live": true }, judge.evidence.toFixed(2)),
    ),
    meter(judge.evidence, name, "large"),
    h("div.meter-scale", { "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, "evidence"), h("span", {}, `1 ${does}`)),
  ];
}

/** @param {any} one */
function reading(one) {
  const { explanation: found } = one;
  const share = (/** @type {number} */ bad, /** @type {number} */ all) => (all > 0 ? percent(bad / all) : "–");
  const bad = one.trouble === "slow" ? "Slow" : "Failed";
  return h(
    "div.reading",
    { key: one.trouble },
    h("p.sentence", {}, one.sentence),
    one.hold && h("p.hold", {}, icon("warn"), `Holds: ${one.hold}`),
    h(
      "table.numbers",
      {},
      h("caption.aside", {}, `What the judge of ${one.trouble} compares`),
      h("thead", {}, h("tr", {}, ["Version", "Requests", bad, "Share"].map((text) => h("th", { scope: "col" }, text)))),
      h(
        "tbody",
        {},
        h("tr", {}, h("th", { scope: "row" }, "this one"), cell(found.canary_requests), cell(found.canary_failures), h("td", {}, share(found.canary_failures, found.canary_requests))),
        h("tr", {}, h("th", { scope: "row" }, "compared with"), cell(found.stable_requests), cell(found.stable_failures), h("td", {}, share(found.stable_failures, found.stable_requests))),
      ),
    ),
  );
}

/** @param {number} number */
const cell = (number) => h("td", {}, count(number));
