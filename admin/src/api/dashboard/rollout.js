// @ts-check
// The steps of a rollout: where it stands, what it waits for, and how it ended.

import { can, pauseRollout, promoteRollout, resumeRollout, startRollout } from "./actions.js";
import { h } from "./dom.js";
import { ago, count, milliseconds, moment, span } from "./format.js";
import { icon, mark } from "./icons.js";

const ENDED = {
  promoted: { icon: /** @type {const} */ ("ok"), text: "promoted" },
  rolled_back: { icon: /** @type {const} */ ("back"), text: "rolled back" },
  superseded: { icon: /** @type {const} */ ("note"), text: "superseded" },
  expired: { icon: /** @type {const} */ ("note"), text: "expired" },
};

/** @param {any} status of the service @param {Record<string, number>} looks */
export function rollout(status, looks) {
  const { rollout } = status;
  if (!rollout) {
    return [h("p.quiet", {}, "There was no rollout yet."), actions(status)];
  }
  const ended = ENDED[/** @type {"promoted"} */ (rollout.status)];
  return [
    h(
      "p.rollout-head",
      {},
      mark(looks[rollout.canary]),
      h("strong", {}, rollout.canary),
      h("span.version", {}, rollout.version),
      h("span.role", { class: `role-${rollout.status}` }, icon(ended?.icon ?? (rollout.status === "paused" ? "warn" : "note")), ended?.text ?? rollout.status),
      h("span.quiet", {}, ended ? ago(rollout.ended.at) : `began ${ago(rollout.began)}, by ${rollout.by}`),
    ),
    h("ol.steps", { "aria-label": "Steps" }, stages(rollout)),
    h("p.waits", {}, ended ? rollout.ended.reason : waits(rollout)),
    actions(status),
  ];
}

/** Where it stands: steps before it are done. @param {any} rollout */
function stages(rollout) {
  const { steps, bake } = rollout.plan;
  const current = rollout.stage.kind === "bake" ? steps.length : rollout.stage.number - 1;
  const stages = steps.map((/** @type {any} */ step) => ({
    share: step.weight,
    note: [step.for, step.approve && "approval"].filter(Boolean).join(", "),
    lasts: step.for,
  }));
  if (bake) {
    stages.push({ share: "bake", note: `${bake.for}, ${bake.holdback} held back`, lasts: bake.for });
  }
  stages.push({ share: "stable", note: "all traffic", lasts: "" });
  const promoted = rollout.status === "promoted";
  return stages.map((/** @type {any} */ stage, /** @type {number} */ index) => {
    const state = promoted || index < current ? "done" : index > current ? "coming" : rollout.ended ? "ended" : "current";
    return h(
      "li.step",
      { key: `step ${index}`, class: `step-${state}`, "aria-current": state === "current" ? "step" : null },
      h("div.step-bar", {}, h("div.step-fill", { vars: { "--share": String(progress(rollout, stage, state)) } })),
      h("span.step-share.number", {}, stage.share.replace("%", " %")),
      h("span.step-note", {}, stage.note),
      h("span.aside", {}, { done: "done", coming: "to come", ended: "ended here", current: "now" }[/** @type {"done"} */ (state)]),
    );
  });
}

/** @param {any} rollout @param {any} stage @param {string} state */
function progress(rollout, stage, state) {
  if (state === "done") {
    return 1;
  }
  if (state !== "current" || !stage.lasts) {
    return state === "ended" ? 1 : 0;
  }
  const until = rollout.paused ? new Date(rollout.paused.at).getTime() : Date.now();
  const took = until - new Date(rollout.stage_since).getTime();
  return Math.max(0, Math.min(1, took / Math.max(1, milliseconds(stage.lasts))));
}

/** @param {any} rollout */
function waits(rollout) {
  const wait = rollout.waits_for;
  if (rollout.paused) {
    const { by, at, reason } = rollout.paused;
    return `Paused by ${by} ${ago(at)}${reason ? `: ${reason}` : ""}. It goes on when somebody resumes it.`;
  }
  switch (wait?.for) {
    case "time":
      return `Goes on in ${span(new Date(wait.until).getTime() - Date.now())}, at ${moment(wait.until)}, if the judge has nothing against it.`;
    case "traffic":
      return `Waits for traffic: ${count(wait.requests)} of ${count(wait.needed)} requests.`;
    case "hold":
      return `Held: ${wait.reason}`;
    case "approval":
      return "Waits for somebody to promote it.";
    default:
      return "Goes on now.";
  }
}

/** @param {any} status */
function actions(status) {
  if (!can("operator")) {
    return null;
  }
  const running = status.rollout && !status.rollout.ended;
  if (!running) {
    return h("div.row", {}, h("button", { onclick: () => startRollout(status) }, "Start a rollout…"));
  }
  return h(
    "div.row",
    {},
    h("button", { onclick: () => promoteRollout(status) }, "Promote…"),
    status.rollout.paused
      ? h("button", { onclick: () => resumeRollout(status.name) }, "Resume…")
      : h("button", { onclick: () => pauseRollout(status.name) }, "Pause…"),
  );
}
