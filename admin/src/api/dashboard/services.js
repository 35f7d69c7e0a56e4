// @ts-check
// All services: is anything wrong, and which version takes which share.
//
// A page holds fifty of them, the worst first, so that a thousand are as quick as ten. Search narrows them.

import { can, rollBack } from "./actions.js";
import { inShort, instances } from "./cluster.js";
import { concerns, doing, rank, worst } from "./concerns.js";
import { h } from "./dom.js";
import { ago, count, percent, plural, rate, time } from "./format.js";
import { meter } from "./gauge.js";
import { icon } from "./icons.js";
import { known } from "./live.js";
import { redraw } from "./page.js";
import { looks } from "./series.js";
import { inWords, splitBar } from "./split_bar.js";
import { happenings } from "./timeline.js";

const PAGE = 50;

/** What is looked for, and how. */
export const wanted = { text: "", only: "all", order: "concern", page: 0 };

/** @param {Partial<typeof wanted>} more */
export function want(more) {
  Object.assign(wanted, { page: 0 }, more);
  redraw();
}

/** @typedef {{glance: any, found: {level: import("./concerns.js").Level, text: string}[]}} Row */

/** @type {Record<string, (one: Row, other: Row) => number>} */
const ORDERS = {
  concern: (one, other) => rank(worst(other.found)) - rank(worst(one.found)) || other.glance.evidence - one.glance.evidence || Number(!!other.glance.rollout) - Number(!!one.glance.rollout),
  name: () => 0,
  requests: (one, other) => other.glance.pace.requests - one.glance.pace.requests,
  errors: (one, other) => failing(other.glance) - failing(one.glance),
};

/** @param {any} glance */
const failing = ({ pace }) => (pace.requests > 0 ? pace.failures / pace.requests : 0);

/** Services that match, in order. @returns {Row[]} */
export function matching() {
  const text = wanted.text.trim().toLowerCase();
  /** @type {Row[]} */
  const rows = known.overview.services.map((/** @type {any} */ glance) => ({ glance, found: concerns(glance) }));
  const matches = rows.filter(({ glance, found }) => {
    const named = !text || glance.name.toLowerCase().includes(text) || Object.values(glance.backends).some((/** @type {any} */ { version }) => version.toLowerCase().includes(text));
    const asked = wanted.only === "concern" ? rank(worst(found)) >= 2 : wanted.only === "rollout" ? glance.rollout || glance.on_trial : true;
    return named && asked;
  });
  return matches.sort(ORDERS[wanted.order]);
}

export function services() {
  const { overview } = known;
  const all = overview.services.map((/** @type {any} */ glance) => worst(concerns(glance)));
  const wrong = all.filter((/** @type {any} */ level) => rank(level) >= 2).length;
  const rows = matching();
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  const page = Math.min(wanted.page, pages - 1);
  return h(
    "div.page.overview",
    { key: "services" },
    headline(overview, all, wrong),
    notices(overview),
    h(
      "div.columns",
      {},
      h(
        "section.list",
        { "aria-label": "Services" },
        tools(overview, wrong),
        rows.length === 0 ? h("p.empty", {}, "No service matches.") : table(rows.slice(page * PAGE, (page + 1) * PAGE)),
        pages > 1 && paging(page, pages, rows.length),
      ),
      h("section.rail", { "aria-label": "Activity" }, instances(overview.cluster), h("div.card", { tabindex: "0" }, h("h2", {}, "What happened"), happenings(known.events.slice(0, 12)))),
    ),
  );
}

/** @param {any} overview @param {any[]} all @param {number} wrong */
function headline(overview, all, wrong) {
  const bad = all.includes("bad");
  const level = wrong === 0 ? "ok" : bad ? "bad" : "warn";
  const text = overview.services.length === 0 ? "No service is configured" : wrong === 0 ? "All is well" : wrong === 1 ? "One service needs a look" : `${wrong} services need a look`;
  const pace = overview.services.reduce(
    (/** @type {any} */ sum, /** @type {any} */ { pace }) => ({ rate: sum.rate + pace.requests / Math.max(1, pace.seconds), requests: sum.requests + pace.requests, failures: sum.failures + pace.failures }),
    { rate: 0, requests: 0, failures: 0 },
  );
  const moving = overview.services.filter((/** @type {any} */ { rollout }) => rollout).length;
  return h(
    `header.page-head.level-${level}`,
    {},
    h("h1", { tabindex: "-1" }, icon(/** @type {"ok"} */ (level)), h("span", { "aria-live": "polite" }, text)),
    h(
      "p.facts",
      {},
      h("span", {}, plural(overview.services.length, "service")),
      moving > 0 && h("span", {}, `${plural(moving, "rollout")} under way`),
      h("span.number", { "data-live": true }, `${rate(pace.rate)} requests/s`),
      h("span.number", { "data-live": true }, pace.requests > 0 ? `${percent(pace.failures / pace.requests)} errors` : "no errors"),
      inShort(overview.cluster),
      h("span.number", {}, `revision ${overview.revision}`),
    ),
  );
}

/** What is wrong with switchback itself. @param {any} overview */
export function notices(overview) {
  const { last_reload: reload } = overview;
  return [
    overview.stable_only &&
      h("div.notice.level-bad", { key: "stable-only", role: "alert" }, icon("bad"), h("p", {}, h("strong", {}, "The recorded state was lost. "), "Every service serves stable only until somebody acknowledges: ", h("code", {}, "switchback acknowledge"))),
    !reload.successful &&
      h("div.notice.level-warn", { key: "reload", role: "alert" }, icon("warn"), h("div", {}, h("p", {}, h("strong", {}, `The file was refused ${ago(reload.at)}. `), "What was in force stays in force."), reload.error && h("pre", { tabindex: "0" }, reload.error))),
    overview.routes_removed.length > 0 &&
      h("div.notice.level-warn", { key: "routes", role: "alert" }, icon("warn"), h("div", {}, h("p", {}, h("strong", {}, "The file has no longer what is used. "), "Nobody was asked at the start."), overview.routes_removed.map((/** @type {string} */ removed) => h("p", {}, removed)))),
  ];
}

/** @param {any} overview @param {number} wrong */
function tools(overview, wrong) {
  const tab = (/** @type {string} */ only, /** @type {string} */ text, /** @type {number | null} */ number) =>
    h("button.tab", { "aria-pressed": String(wanted.only === only), onclick: () => want({ only }) }, text, number !== null && h("span.number", {}, String(number)));
  const moving = overview.services.filter((/** @type {any} */ one) => one.rollout || one.on_trial).length;
  return h(
    "div.tools",
    {},
    h("div.tabs", { role: "group", "aria-label": "Which services" }, tab("all", "All", overview.services.length), tab("concern", "Need a look", wrong), tab("rollout", "Moving", moving)),
    h(
      "label.field.inline",
      {},
      h("span", {}, "Order"),
      h(
        "select",
        { onchange: (/** @type {any} */ event) => want({ order: event.target.value }) },
        [["concern", "worst first"], ["name", "name"], ["requests", "requests"], ["errors", "errors"]].map(([code, said]) => h("option", { value: code, selected: wanted.order === code }, said)),
      ),
    ),
  );
}

/** @param {Row[]} rows */
function table(rows) {
  const heads = ["Service", "Split", "Requests/s", "Errors", "p99", "Evidence", "Actions"];
  return h(
    "table.services.stacks",
    {},
    h("caption.aside", {}, "Services"),
    h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text === "Actions" ? h("span.aside", {}, text) : text)))),
    h("tbody", {}, rows.map(row)),
  );
}

/** @param {Row} row */
function row({ glance, found }) {
  const level = worst(found);
  const colours = looks(Object.keys(glance.backends));
  const split = Object.entries(glance.backends).map(([name, { version, share }]) => ({ name, version, share, look: colours[name] }));
  const share = failing(glance);
  const { pace } = glance;
  const words = [...found.filter(({ level }) => level !== "note").map(({ text }) => text), doing(glance), ...found.filter(({ level }) => level === "note").map(({ text }) => text)].filter(Boolean);
  return h(
    "tr",
    { key: glance.name, class: `level-${level}` },
    h(
      "th",
      { scope: "row" },
      h(
        "div.who-row",
        {},
        h("span.row-state", {}, icon(level, level === "ok" ? "well" : level)),
        h("div", {}, h("a.row-link", { href: `#/services/${encodeURIComponent(glance.name)}` }, glance.name), words.length > 0 && h("span.row-words", {}, words.join(" · "))),
      ),
    ),
    h("td.row-split", { "data-label": "Split" }, splitBar(split, "small"), h("span.row-words", {}, inWords(split.filter(({ share }) => share > 0)))),
    h("td.number", { "data-label": "Requests/s" }, h("span", { "data-live": true }, rate(pace.requests / Math.max(1, pace.seconds)))),
    h("td.number", { "data-label": "Errors", class: share >= 0.01 ? "alarming" : "" }, h("span", { "data-live": true }, pace.requests > 0 ? percent(share) : "–")),
    h("td.number", { "data-label": "p99" }, h("span", { "data-live": true }, time(pace.p99_ms))),
    h("td.row-evidence", { "data-label": "Evidence" }, h("span", { "data-live": true }, glance.evidence > 0 || glance.rollout || glance.on_trial ? meter(glance.evidence, glance.name, "small") : h("span.quiet", {}, "–"))),
    h("td.actions", {}, can("rollback") && h("button.quiet", { onclick: () => rollBack(glance.name) }, icon("back"), "Roll back", h("span.aside", {}, ` ${glance.name}`))),
  );
}

/** @param {number} page @param {number} pages @param {number} rows */
function paging(page, pages, rows) {
  const go = (/** @type {number} */ to) => () => {
    want({ page: to });
    scrollTo({ top: 0 });
  };
  return h(
    "nav.paging",
    { "aria-label": "Pages of services" },
    h("button", { disabled: page === 0, onclick: go(page - 1) }, "Previous"),
    h("span.number", {}, `${count(page * PAGE + 1)}–${count(Math.min(rows, (page + 1) * PAGE))} of ${count(rows)}`),
    h("button", { disabled: page + 1 >= pages, onclick: go(page + 1) }, "Next"),
  );
}
