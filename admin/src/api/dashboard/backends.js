// @ts-check
// The backends of a service: who they are, how they do, and what keeps them out.

import { blockBackend, can, unblockBackend } from "./actions.js";
import { h } from "./dom.js";
import { ago, count, percent, rate, time } from "./format.js";
import { icon, mark } from "./icons.js";
import { pace } from "./trends.js";

const HEALTH = {
  healthy: { icon: /** @type {const} */ ("ok"), text: "healthy" },
  unknown: { icon: /** @type {const} */ ("unknown"), text: "not known yet" },
  unhealthy: { icon: /** @type {const} */ ("bad"), text: "down" },
};

/** @param {string} health */
const healthOf = (health) => HEALTH[/** @type {"healthy"} */ (health)] ?? HEALTH.unknown;

const HEADS = ["Backend", "Share", "Requests/s", "Errors", "p50", "p99", "In flight", "Endpoints", ""];

/** @param {any} about what is known of the service @param {Record<string, number>} looks */
export function backends(about, looks) {
  const { status, trend } = about;
  return h(
    "table.backends.stacks",
    {},
    h("caption.aside", {}, `Backends of ${status.name}`),
    h("thead", {}, h("tr", {}, HEADS.map((text) => h("th", { scope: "col" }, text || h("span.aside", {}, "Actions"))))),
    h("tbody", {}, Object.entries(status.backends).map(([name, backend]) => row(status, trend, name, backend, looks))),
  );
}

/** @param {any} status @param {any} trend @param {string} name @param {any} backend @param {Record<string, number>} looks */
function row(status, trend, name, backend, looks) {
  const now = trend ? pace(trend, name) : { requests: 0, failures: 0, p50: null, p99: null };
  const cell = (/** @type {string} */ label, /** @type {any} */ value, more = "") =>
    h("td.number", { "data-label": label, class: more }, h("span", { "data-live": true }, value));
  const failing = now.requests > 0 ? now.failures / now.requests : null;
  const up = backend.endpoints.filter((/** @type {any} */ endpoint) => endpoint.health !== "unhealthy").length;
  return h(
    "tr",
    { key: name, class: backend.share > 0 ? "" : "none" },
    h(
      "th",
      { scope: "row" },
      h(
        "div.who-row",
        {},
        mark(looks[name]),
        h("span.name", {}, name),
        h("span.version", { title: "version" }, backend.version),
        h(`span.role.role-${backend.role}`, {}, backend.role),
        backend.blocked && h("span.role.role-blocked", {}, icon("bad"), "blocked"),
      ),
    ),
    cell("Share", percent(backend.share), "strong"),
    cell("Requests/s", rate(now.requests)),
    cell("Errors", failing === null ? "–" : percent(failing), failing !== null && failing >= 0.01 ? "alarming" : ""),
    cell("p50", time(now.p50)),
    cell("p99", time(now.p99)),
    cell("In flight", count(backend.in_flight)),
    h(
      "td",
      { "data-label": "Endpoints" },
      h("span.health", { "data-live": true }, icon(healthOf(backend.health).icon), `${up}/${backend.endpoints.length}`, h("span.aside", {}, ` ${healthOf(backend.health).text}`)),
    ),
    h("td.actions", {}, button(status, name, backend)),
  );
}

/** @param {any} status @param {string} name @param {any} backend */
function button(status, name, backend) {
  if (backend.blocked) {
    return can("operator") && h("button.quiet", { onclick: () => unblockBackend(status.name, name) }, "Unblock", h("span.aside", {}, ` ${name}`));
  }
  return can("rollback") && h("button.quiet", { onclick: () => blockBackend(status.name, name) }, "Block", h("span.aside", {}, ` ${name}`));
}

/** Every address, with what is known of it. @param {any} status @param {Record<string, number>} looks */
export function endpoints(status, looks) {
  return h(
    "ul.endpoints",
    {},
    Object.entries(status.backends).flatMap(([name, backend]) =>
      backend.endpoints.map((/** @type {any} */ endpoint) => {
        const { icon: shape, text } = healthOf(endpoint.health);
        return h(
          "li",
          { key: `${name} ${endpoint.url} ${endpoint.address}` },
          mark(looks[name]),
          h("code", {}, endpoint.url),
          h(`span.state.state-${endpoint.health}`, { "data-live": true }, icon(shape), text),
        );
      }),
    ),
    status.health.panic &&
      h("li.warning", { key: "panic" }, icon("warn"), "Probes fail everywhere and are not believed: requests go on being sent."),
  );
}

/** Versions that get no traffic. @param {any} status */
export function blocked(status) {
  const versions = Object.entries(status.blocked_versions);
  if (versions.length === 0) {
    return h("p.quiet", {}, "No version is blocked.");
  }
  return h(
    "ul.blocked",
    {},
    versions.map(([version, block]) => {
      const there = Object.entries(status.backends).find(([, backend]) => backend.version === version);
      return h(
        "li",
        { key: version },
        h("p", {}, icon("bad"), h("strong", {}, `version ${version}`), h("span.quiet", {}, ` on ${block.backend}, by ${block.by}, ${ago(block.at)}`)),
        block.reason && h("p.sentence", {}, block.reason),
        there && can("operator") && h("button", { onclick: () => unblockBackend(status.name, there[0]) }, `Unblock ${version}`),
        !there && h("p.quiet", {}, "It is not deployed any more."),
      );
    }),
  );
}
