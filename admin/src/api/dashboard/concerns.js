// @ts-check
// Whether anything is wrong, and in which words.

import { percent } from "./format.js";

/** @typedef {"ok" | "note" | "warn" | "bad"} Level */

const ORDER = ["ok", "note", "warn", "bad"];

/** @type {Record<string, {level: Level, text: (glance: any) => string}>} */
const CONCERNS = {
  no_healthy_endpoint: { level: "bad", text: () => "no healthy endpoint" },
  unhealthy_endpoint: { level: "warn", text: () => "an endpoint is down" },
  rule_fires: { level: "bad", text: () => "a rule fires about stable" },
  version_blocked: {
    level: "warn",
    text: (glance) => {
      const blocked = Object.entries(glance.backends).filter(([, backend]) => backend.blocked);
      return blocked.map(([name, backend]) => `${name} ${backend.version} is blocked`).join(", ");
    },
  },
  held: { level: "warn", text: () => "the judge holds" },
  rollout_waits: {
    level: "warn",
    text: (glance) => (glance.rollout?.status === "paused" ? "the rollout is paused" : "the rollout waits for approval"),
  },
  signal_missing: { level: "warn", text: () => "a signal is missing" },
  file_disagrees: { level: "note", text: () => "differs from the file" },
};

/** Failures from here on are worth a word, and from there on an alarm. */
const FAILING = { warn: 0.01, bad: 0.05, least: 3 };

/** What there is to say about a service, the worst first. @param {any} glance @returns {{level: Level, text: string}[]} */
export function concerns(glance) {
  /** @type {{level: Level, text: string}[]} */
  const found = glance.concerns.map((/** @type {string} */ code) => {
    const concern = CONCERNS[code] ?? { level: "warn", text: () => code.replaceAll("_", " ") };
    return { level: concern.level, text: concern.text(glance) };
  });
  const { requests, failures } = glance.pace;
  if (failures >= FAILING.least && failures / requests >= FAILING.warn) {
    const share = failures / requests;
    found.push({ level: share >= FAILING.bad ? "bad" : "warn", text: `${percent(share)} of requests fail` });
  }
  return found.sort((one, other) => ORDER.indexOf(other.level) - ORDER.indexOf(one.level));
}

/** @param {{level: Level}[]} found @returns {Level} */
export const worst = (found) => found[0]?.level ?? "ok";

/** @param {Level} level */
export const rank = (level) => ORDER.indexOf(level);

/** @type {Record<Level, string>} */
export const SAID = { ok: "well", note: "note", warn: "needs a look", bad: "wrong" };

/** What is going on with a service that is no concern. @param {any} glance */
export function doing(glance) {
  if (glance.rollout) {
    const { canary, status, weight } = glance.rollout;
    return `${status === "paused" ? "paused" : "rolling out"}: ${canary} at ${weight.replace("%", " %")}`;
  }
  if (glance.on_trial) {
    return `${glance.on_trial} is on trial`;
  }
  return "";
}
