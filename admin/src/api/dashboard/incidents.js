// @ts-check
// Rollbacks: what, when, why, whether it helped; and all evidence of one.

import { figure } from "./chart.js";
import { h } from "./dom.js";
import { ago, count, micros, moment, percent, time } from "./format.js";
import { icon } from "./icons.js";
import { looks } from "./series.js";
import { parts, splitBar, splitList } from "./split_bar.js";

const RECOVERY = {
  pending: { icon: /** @type {const} */ ("note"), text: "being watched" },
  recovered: { icon: /** @type {const} */ ("ok"), text: "recovered" },
  did_not_help: { icon: /** @type {const} */ ("bad"), text: "did not help" },
  unknown: { icon: /** @type {const} */ ("unknown"), text: "not known" },
  interrupted: { icon: /** @type {const} */ ("note"), text: "interrupted" },
  not_needed: { icon: /** @type {const} */ ("ok"), text: "no user met it" },
};

/** @param {string} state */
function recovered(state) {
  const { icon: shape, text } = RECOVERY[/** @type {"pending"} */ (state)] ?? RECOVERY.unknown;
  return h("span.state", { class: `state-${state}` }, icon(shape), text);
}

/** @param {any[]} incidents @param {boolean} [services] */
export function incidents(incidents, services = false) {
  if (incidents.length === 0) {
    return h("p.quiet", {}, "Nothing was rolled back yet.");
  }
  return h(
    "ol.incidents",
    {},
    incidents.map((incident) =>
      h(
        "li",
        { key: String(incident.id) },
        h(
          "p.timeline-head",
          {},
          h("a.strong", { href: `#/incidents/${incident.id}` }, services ? `${incident.service}: ` : "", `${incident.backend} ${incident.version}`),
          recovered(incident.recovery),
          h("span.who", {}, `${incident.cause}, by ${incident.by}`),
          h("time", { datetime: incident.at, title: moment(incident.at) }, ago(incident.at)),
        ),
        h("p.note", {}, incident.sentence),
      ),
    ),
  );
}

/** All of one. @param {any} record */
export function incident(record) {
  const colours = looks(Object.keys(record.weights_before));
  return [
    h(
      "header.page-head",
      {},
      h("p.crumbs", {}, h("a", { href: "#/incidents" }, "Incidents"), " / ", h("a", { href: `#/services/${encodeURIComponent(record.service)}` }, record.service)),
      h("h1", { tabindex: "-1" }, `${record.backend} ${record.version} was rolled back`),
      h("p.lead", {}, record.sentence),
      h(
        "p.facts",
        {},
        h("span", {}, `${moment(record.at)} (${ago(record.at)})`),
        h("span", {}, `by ${record.by}`),
        record.applied_in_us !== null && h("span", {}, `in force on every worker after ${micros(record.applied_in_us)}`),
        recovered(record.recovery.state),
        record.replayed === true && h("span.state", {}, icon("ok"), "evidence replayed: same verdict"),
        record.replayed === false && h("span.state", {}, icon("bad"), `evidence does not add up: ${record.replay_problem}`),
      ),
    ),
    h("section.card", {}, h("h2", {}, "Split"), beforeAfter(record.weights_before, record.weights_after, colours)),
    record.versions.map((/** @type {any} */ version) => evidence(version, record, colours)),
    h("section.card", {}, h("h2", {}, "Whether it helped"), h("p.sentence", {}, record.recovery.sentence || "It is being watched.")),
    h("section.card", {}, h("h2", {}, "What was done"), moments(record.actions)),
    h("section.card", {}, h("h2", {}, "What else was changed"), moments(record.timeline)),
  ];
}

/** @param {any[]} done */
function moments(done) {
  return h("ol.moments", {}, done.map((one) => h("li", {}, h("time", { datetime: one.at }, moment(one.at)), h("span", {}, one.what))));
}

/** @param {Record<string, number>} before @param {Record<string, number>} after @param {Record<string, number>} looks */
export function beforeAfter(before, after, looks) {
  const [then, now] = [parts(before, looks), parts(after, looks)];
  return h(
    "div.before-after",
    {},
    h("div", {}, h("p.label", {}, "Before"), splitBar(then, "large", "Before"), splitList(then)),
    h("div", {}, h("p.label", {}, "After"), splitBar(now, "large", "After"), splitList(now)),
  );
}

/** @param {any} version @param {any} record @param {Record<string, number>} colours */
function evidence(version, record, colours) {
  return h(
    "section.card",
    { key: version.backend },
    h("h2", {}, `What was seen of ${version.backend} ${version.version}`),
    version.judges.map((/** @type {any} */ judge) => h("p.sentence", {}, judge.sentence)),
    version.rule && h("p.sentence", {}, `The rule ${version.rule.rule} fired.`),
    version.impact && impact(version.impact),
    version.seconds.length > 0 && seconds(version, record, colours),
    version.samples.length > 0 && samples(version.samples),
  );
}

/** @param {any} impact */
function impact({ touched, saw_error: failed, rescued }) {
  const tile = (/** @type {string} */ text, /** @type {any} */ reach) =>
    h("div.tile", {}, h("strong.number", {}, count(reach.requests)), h("span", {}, text), h("span.quiet", {}, `≈ ${count(reach.clients)} clients`));
  return h("div.tiles", {}, tile("requests reached it", touched), tile("got its error", failed), tile("were rescued by stable", rescued));
}

/** @param {any} version @param {any} record @param {Record<string, number>} colours */
function seconds(version, record, colours) {
  const zero = Math.floor(new Date(record.at).getTime() / 1000);
  const [first, last] = [version.seconds[0].second, version.seconds.at(-1).second];
  const at = new Map(version.seconds.map((/** @type {any} */ second) => [second.second, second]));
  const share = (/** @type {"canary" | "stable"} */ who) => {
    const values = [];
    for (let second = first; second <= last; second += 1) {
      const found = at.get(second);
      const all = found?.[`${who}_requests`] ?? 0;
      values.push(all > 0 ? found[`${who}_failures`] / all : null);
    }
    return values;
  };
  return figure({
    id: `incident-${version.backend}`,
    title: "Failed requests, second by second",
    from: zero + first,
    to: zero + last,
    past: Math.max(30, last - first),
    lines: [
      { label: version.backend, look: colours[version.backend] ?? 1, values: share("canary") },
      { label: "compared with", look: colours[record.stable] ?? 0, values: share("stable") },
    ],
    marks: [{ second: zero, label: "rolled back", bad: true }],
    least: 0.02,
    text: percent,
    now: ["", ""],
  });
}

/** @param {any[]} samples */
function samples(samples) {
  const heads = ["Time", "Method", "Outcome", "After", "Request id"];
  return h(
    "details",
    {},
    h("summary", {}, `The last ${samples.length} failures`),
    h(
      "div.scrolls",
      { tabindex: "0", role: "region", "aria-label": "The last failures" },
      h(
        "table.numbers",
        {},
        h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))),
        h(
          "tbody",
          {},
          samples.map((one) =>
            h("tr", {}, h("td", {}, moment(one.at)), h("td", {}, one.method), h("td", {}, one.outcome), h("td", {}, time(one.duration_ms)), h("td", {}, h("code", {}, one.request_id))),
          ),
        ),
      ),
    ),
  );
}
