// @ts-check
// What was changed, by whom and why; and what happened.

import { h } from "./dom.js";
import { ago, moment, percent } from "./format.js";
import { icon } from "./icons.js";

/** @type {Record<string, "back" | "bad" | "warn" | "ok" | "note">} */
const SHAPES = {
  rollback: "back",
  block: "bad",
  switch: "note",
  promote: "ok",
  unblock: "ok",
  rolled_back: "back",
  recovered: "ok",
  promoted: "ok",
};

/** @param {string} action */
const verb = (action) => action.replaceAll("_", " ");

/** Recorded changes, the newest first. @param {any[]} revisions @param {{services?: boolean}} [options] */
export function timeline(revisions, options = {}) {
  if (revisions.length === 0) {
    return h("p.quiet", {}, "Nothing was changed yet: everything is as the file says.");
  }
  return h("ol.timeline", {}, revisions.map((revision) => entry(revision, options)));
}

/** @param {any} revision @param {{services?: boolean}} options */
function entry(revision, { services }) {
  const names = Object.keys(revision.changes);
  return h(
    "li",
    { key: String(revision.revision), class: revision.action === "rollback" ? "is-rollback" : "" },
    h("span.timeline-sign", {}, icon(SHAPES[revision.action] ?? "note")),
    h(
      "div",
      {},
      h(
        "p.timeline-head",
        {},
        h("strong", {}, verb(revision.action)),
        services && names.slice(0, 3).map((name) => h("a", { href: `#/services/${encodeURIComponent(name)}` }, name)),
        services && names.length > 3 && h("span.quiet", {}, `and ${names.length - 3} more`),
        h("span.who", {}, ["api", revision.by].includes(revision.via) ? `by ${revision.by}` : `by ${revision.by} (${revision.via})`),
        h("time", { datetime: revision.at, title: moment(revision.at) }, ago(revision.at)),
        h("span.revision.number", { title: "revision" }, `r${revision.revision}`),
      ),
      revision.reason && h("p.reason", {}, `“${revision.reason}”`),
      notes(revision).map((/** @type {string} */ note) => h("p.note", { key: note }, note)),
      services ? null : differences(revision, names[0]),
    ),
  );
}

/** What happened, unless the reason says it already. @param {any} revision */
function notes(revision) {
  const { reason } = revision;
  return revision.notes.filter((/** @type {string} */ note) => !reason || !note.includes(reason)).slice(0, 3);
}

/** The split before and after, if it is another one. @param {any} revision @param {string} name */
function differences(revision, name) {
  const change = revision.changes[name];
  const [before, after] = [change?.in_force_before?.weights, change?.in_force_after?.weights];
  if (!before || !after) {
    return null;
  }
  const moved = Object.keys(after).filter((backend) => share(before, backend) !== share(after, backend));
  if (moved.length === 0) {
    return null;
  }
  return h(
    "p.moved.number",
    {},
    moved.map((backend) => h("span", { key: backend }, `${backend} ${share(before, backend)} → ${share(after, backend)}`)),
  );
}

/** @param {Record<string, number>} weights @param {string} backend */
function share(weights, backend) {
  const sum = Object.values(weights).reduce((sum, weight) => sum + weight, 0);
  return percent((weights[backend] ?? 0) / Math.max(1, sum));
}

const ALARMING = new Set([
  "rolled_back", "rollback_held", "rollback_did_not_help", "judge_hold", "judge_notify", "rule_fired",
  "stable_failing", "signal_missing", "reload_failed", "state_lost", "conflict", "schema_conflict",
  "apply_unconfirmed", "gap",
]);

/** What happened, the newest first. @param {any[]} events */
export function happenings(events) {
  if (events.length === 0) {
    return h("p.quiet", {}, "Nothing has happened since switchback was started.");
  }
  return h(
    "ol.timeline",
    {},
    events.map((event) =>
      h(
        "li",
        { key: String(event.id), class: event.kind === "rolled_back" ? "is-rollback" : "" },
        h("span.timeline-sign", {}, icon(SHAPES[event.kind] ?? (ALARMING.has(event.kind) ? "warn" : "note"))),
        h(
          "div",
          {},
          h(
            "p.timeline-head",
            {},
            h("strong", {}, verb(event.kind)),
            event.service && h("a", { href: `#/services/${encodeURIComponent(event.service)}` }, event.service),
            h("span.who", {}, `by ${event.by}`),
            h("time", { datetime: event.at, title: moment(event.at) }, ago(event.at)),
          ),
          h("p.note", {}, event.message),
        ),
      ),
    ),
  );
}
