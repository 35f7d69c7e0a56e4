// @ts-check
// One service: is anything wrong, which version takes which share, what did the judge see, what can one do.

import { can, setWeights, switchTo } from "./actions.js";
import { backends, blocked, endpoints } from "./backends.js";
import { concerns, worst } from "./concerns.js";
import { h } from "./dom.js";
import { ago, moment, span } from "./format.js";
import { judges } from "./gauge.js";
import { icon } from "./icons.js";
import { incidents } from "./incidents.js";
import { known } from "./live.js";
import { rollout } from "./rollout.js";
import { runbook } from "./runbook.js";
import { looks } from "./series.js";
import { splitBar } from "./split_bar.js";
import { timeline } from "./timeline.js";
import { charts } from "./trends.js";

/** A rollback is news for so long. */
const NEWS_MS = 10 * 60_000;

/** @param {string} name */
export function service(name) {
  const about = known.service;
  if (about?.problem) {
    return h("div.page", { key: `service ${name}` }, top("warn", [icon("warn"), name], null, about.problem.message));
  }
  if (!about?.status) {
    return h("div.page", { key: `service ${name}` }, top("ok", [icon("unknown"), name], null, "Looking…"));
  }
  const { status } = about;
  const colours = looks(Object.keys(status.backends));
  return h(
    "div.page",
    { key: `service ${name}` },
    head(status, about),
    news(about),
    h("section.card.split-card", { "aria-label": "Split" }, split(status, colours), backends(about, colours)),
    about.trend && h("section.card.charts-card", { "aria-label": "The last ten minutes" }, charts(about.trend, colours, about.revisions?.revisions ?? [])),
    h(
      "div.grid",
      {},
      h("div.half", {}, card("Judge", judges(status, colours), "judge-card"), card("Rollout", rollout(status, colours), "rollout-card"), card("Runbook", runbook(status), "runbook-card")),
      h(
        "div.half",
        {},
        card("Why", why(about.explanation), "why-card"),
        card("Endpoints", [endpoints(status, colours), signals(status)], "endpoints-card"),
        card("Blocked versions", blocked(status), "blocked-card"),
      ),
    ),
    h(
      "div.grid.wide-first",
      {},
      card("History", timeline(about.revisions?.revisions ?? []), "history-card"),
      card("Incidents", incidents(about.incidents?.rollbacks ?? []), "incidents-card"),
    ),
  );
}

/** The top of the page, which stays the same while it is filled. @param {string} level @param {any} title @param {any} actions @param {any} facts @param {any} [more] */
function top(level, title, actions, facts, more) {
  return h(
    `header.page-head.level-${level}`,
    {},
    h("p.crumbs", {}, h("a", { href: "#/" }, "Services"), " /"),
    h("div.head-row", {}, h("h1", { tabindex: "-1" }, title), actions && h("div.head-actions", { role: "group", "aria-label": "Actions" }, actions)),
    h("p.facts", {}, facts),
    more,
  );
}

/** @param {string} title @param {any} inside @param {string} name */
const card = (title, inside, name) => h("section.card", { class: name, "aria-label": title, key: name }, h("h2", {}, title), inside);

/** @param {any} status @param {any} about */
function head(status, about) {
  const glance = known.overview?.services.find((/** @type {any} */ one) => one.name === status.name);
  const found = glance ? concerns(glance) : [];
  const level = worst(found);
  const shown = found.filter(({ level }) => level !== "note");
  const trial = status.on_trial;
  const actions = can("operator") && [
    h("button", { onclick: () => setWeights(status) }, "Adjust split…"),
    Object.keys(status.backends).length > 1 && h("button", { onclick: () => switchTo(status) }, "Switch…"),
  ];
  return top(
    level,
    [icon(level, level === "ok" ? "well" : level), status.name],
    actions,
    [
      shown.length > 0 ? shown.map(({ text, level }) => h("span.fact", { key: text, class: `level-${level}` }, icon(level), text)) : h("span.fact", {}, "All is well"),
      readiness(glance?.ready),
      trial && h("span", {}, `${trial.backend} is on trial for ${span(new Date(trial.until).getTime() - Date.now())}`),
      status.override.lease && h("span", {}, `the split ends ${moment(status.override.lease.until)}`),
      h("span.number", {}, `revision ${about.status.revision}`),
    ],
    [notReady(glance?.ready), status.conflicts.length > 0 && h("details.conflicts", {}, h("summary", {}, "The file says something else"), h("ul", {}, status.conflicts.map((/** @type {any} */ conflict) => h("li", {}, conflict.message ?? conflict.field))))],
  );
}

/** Whether the service could be rolled back right now. @param {any} ready */
const readiness = (ready) =>
  ready && h("span.fact", { id: "ready", class: ready.ready ? "level-ok" : "level-note" }, icon(ready.ready ? "ok" : "note"), ready.ready ? "ready to roll back" : "not ready to roll back");

/** @param {any} ready */
const notReady = (ready) =>
  ready && !ready.ready && h("details.conflicts", { key: "not ready" }, h("summary", {}, "Not ready to roll back"), h("ul", {}, ready.reasons.map((/** @type {string} */ text) => h("li", {}, text))));

/** A rollback that somebody should know of. @param {any} about */
function news(about) {
  const last = about.incidents?.rollbacks[0];
  if (!last || Date.now() - new Date(last.at).getTime() > NEWS_MS) {
    return null;
  }
  return h(
    "div.notice.level-bad",
    { key: `news ${last.id}`, role: "alert", id: "news" },
    icon("back"),
    h("div", {}, h("p", {}, h("strong", {}, `${last.backend} ${last.version} was rolled back by ${last.by === "judge" ? "the judge" : last.by}, ${ago(last.at)}. `), h("a", { href: `#/incidents/${last.id}` }, "Evidence")), h("p.sentence", {}, last.sentence)),
  );
}

/** @param {any} status @param {Record<string, number>} looks */
function split(status, looks) {
  const parts = Object.entries(status.backends).map(([name, backend]) => ({ name, version: backend.version, share: backend.share, look: looks[name] }));
  return splitBar(parts, "large");
}

/** @param {any} explanation */
function why(explanation) {
  if (!explanation) {
    return null;
  }
  const part = (/** @type {string} */ title, /** @type {string[]} */ sentences) =>
    sentences.length > 0 && [h("h3", {}, title), h("ul.sentences", {}, sentences.map((text) => h("li", {}, text)))];
  return [part("Now", explanation.now), part("Because", explanation.why), part("Next, by itself", explanation.next)];
}

const SIGNALS = {
  ok: /** @type {const} */ ("ok"),
  pending: /** @type {const} */ ("warn"),
  firing: /** @type {const} */ ("bad"),
  missing: /** @type {const} */ ("unknown"),
  idle: /** @type {const} */ ("note"),
};

/** @param {any} status */
function signals(status) {
  const rules = status.rules_firing.map((/** @type {any} */ one) => h("li", { key: `rule ${one.rule}` }, icon("bad"), h("strong", {}, one.rule), "fires about stable"));
  const seen = status.signals.map((/** @type {any} */ one) =>
    h(
      "li",
      { key: `signal ${one.backend} ${one.name}` },
      icon(SIGNALS[/** @type {"ok"} */ (one.state)] ?? "unknown"),
      h("strong", {}, one.name),
      h("span.quiet", {}, `${one.source}, bad if ${one.threshold} for ${one.span}`),
      h("span.number", { "data-live": true }, one.value === null || one.value === undefined ? one.state : `${one.value} (${one.state})`),
    ),
  );
  return rules.length + seen.length > 0 && [h("h3", {}, "Rules and signals"), h("ul.endpoints", {}, rules, seen)];
}
