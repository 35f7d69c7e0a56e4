// @ts-check
// What one can do about a service. Each is a plan that is looked at first and then confirmed.

import { at } from "./api.js";
import { consider, reconsider } from "./dialog.js";
import { h } from "./dom.js";
import { micros, percent } from "./format.js";
import { known } from "./live.js";
import { weightFields, weightsOf } from "./weights.js";

const ROLES = ["viewer", "rollback", "operator", "admin"];

/** Whether the token may do what needs this role. @param {string} role */
export const can = (role) => ROLES.indexOf(known.identity?.role) >= ROLES.indexOf(role);

/** What came of it, in one line. @param {string} what @returns {(answer: any) => string} */
const told = (what) => (answer) => {
  if (!answer.changed) {
    return `${what}: it was so already`;
  }
  const lasting = answer.durable === false ? "; not on disk yet" : "";
  return `${what}: in force on every worker after ${micros(answer.applied_in_us)}, revision ${answer.revision}${lasting}`;
};

/** Services that there are. */
const names = () => /** @type {string[]} */ (known.overview?.services.map((/** @type {any} */ one) => one.name) ?? []);

/** The service that somebody who reaches for the red button most likely means. */
function likely() {
  const busy = (/** @type {any} */ one) =>
    (one.rollout ? 4 : 0) + one.evidence * 2 + (one.on_trial ? 1 : 0) + (Object.values(one.backends).filter(({ share }) => share > 0).length > 1 ? 3 : 0);
  const services = known.overview?.services ?? [];
  return services.toSorted((/** @type {any} */ one, /** @type {any} */ other) => busy(other) - busy(one))[0]?.name ?? "";
}

/** The red button, for one service or all. @param {string} [about] */
export function rollBack(about) {
  let service = about ?? likely();
  const all = "all services";
  consider({
    title: about ? `Roll back ${about}` : "Roll back",
    verb: "Roll back now",
    danger: true,
    urgent: true,
    force: true,
    lead: "Takes all traffic from canaries, or goes back to the previous stable. What is rolled back is blocked until somebody unblocks it.",
    fields: () =>
      !about &&
      h(
        "label.field",
        {},
        h("span", {}, "Service"),
        h(
          "select",
          {
            onchange: (/** @type {any} */ event) => {
              service = event.target.value;
              reconsider();
            },
          },
          [...names(), all].map((name) => h("option", { value: name, selected: name === service }, name)),
        ),
      ),
    request: () => {
      if (!service) {
        return null;
      }
      const path = service === all ? "/v1/rollback" : at(service, "/rollback");
      return { method: "POST", path, body: {} };
    },
    done: (answer) => {
      if (!answer.services) {
        return told(`${service} rolled back`)(answer);
      }
      const changed = answer.services.filter((/** @type {any} */ one) => one.changed).length;
      return `${changed} services rolled back, ${answer.refused} refused`;
    },
  });
}

/** Another split. @param {any} status of the service */
export function setWeights(status) {
  const weights = weightsOf(status);
  let lease = "";
  consider({
    title: `Adjust the split of ${status.name}`,
    verb: "Set the split",
    guarded: true,
    lead: "The roles stay as they are. What stable does not give away it keeps.",
    fields: () => weightFields(weights, status, lease, (wanted) => {
      lease = wanted;
      reconsider();
    }),
    request: () => ({ method: "PUT", path: at(status.name, "/weights"), body: { weights: { ...weights.table }, ...(lease ? { lease } : {}) } }),
    done: (answer) => told(`${status.name}: ${split(answer.weights)}`)(answer),
  });
}

/** @param {Record<string, number>} weights */
function split(weights) {
  const sum = Object.values(weights).reduce((sum, weight) => sum + weight, 0);
  return Object.entries(weights).map(([name, weight]) => `${name} ${percent(weight / sum)}`).join(", ");
}

/** A choice among backends. @param {string} text @param {any} status @param {string[]} names @param {string} chosen @param {(name: string) => void} choose */
function choice(text, status, names, chosen, choose) {
  return h(
    "fieldset.choice",
    {},
    h("legend", {}, text),
    names.map((name, index) =>
      h(
        "label.check",
        { key: name },
        h("input", {
          type: "radio",
          name: "choice",
          value: name,
          "data-first": index === 0,
          checked: name === chosen,
          onchange: () => {
            choose(name);
            reconsider();
          },
        }),
        h("span", {}, h("strong", {}, name), ` version ${status.backends[name].version}`, status.backends[name].blocked && " (blocked)"),
      ),
    ),
  );
}

/** Blue/green. @param {any} status */
export function switchTo(status) {
  const others = Object.keys(status.backends).filter((name) => name !== status.stable);
  let to = others[0];
  consider({
    title: `Switch ${status.name}`,
    verb: "Switch now",
    guarded: true,
    force: true,
    lead: `All traffic goes to another backend, which becomes stable. ${status.stable} stays warm: rollback goes there.`,
    fields: () => choice("To", status, others, to, (name) => (to = name)),
    request: () => (to ? { method: "POST", path: at(status.name, "/switch"), body: { to } } : null),
    done: told(`${status.name} switched`),
  });
}

/** @param {string} service @param {string} backend */
export function blockBackend(service, backend) {
  consider({
    title: `Block ${backend} of ${service}`,
    verb: "Block now",
    danger: true,
    urgent: true,
    force: true,
    lead: "Its version gets no traffic from now on, until somebody unblocks it or another version is deployed there.",
    request: () => ({ method: "POST", path: at(service, `/backends/${encodeURIComponent(backend)}/block`), body: {} }),
    done: told(`${backend} of ${service} blocked`),
  });
}

/** @param {string} service @param {string} backend */
export function unblockBackend(service, backend) {
  consider({
    title: `Unblock ${backend} of ${service}`,
    verb: "Unblock",
    guarded: true,
    lead: "Allows its version again. No traffic moves by itself.",
    request: () => ({ method: "POST", path: at(service, `/backends/${encodeURIComponent(backend)}/unblock`), body: {} }),
    done: told(`${backend} of ${service} unblocked`),
  });
}

/** @param {any} status */
export function startRollout(status) {
  const others = Object.keys(status.backends).filter((name) => name !== status.stable);
  let canary = others[0];
  let fast = false;
  consider({
    title: `Start a rollout of ${status.name}`,
    verb: "Start",
    guarded: true,
    force: true,
    lead: "The canary gets the share of each step in turn, as long as the judge has nothing against it, and becomes stable at the end.",
    fields: () => [
      choice("Canary", status, others, canary, (name) => (canary = name)),
      h(
        "label.check",
        {},
        h("input", {
          type: "checkbox",
          checked: fast,
          onchange: (/** @type {any} */ event) => {
            fast = event.target.checked;
            reconsider();
          },
        }),
        h("span", {}, "Skip the steps, for a version that was stable before"),
      ),
    ],
    request: () => (canary ? { method: "POST", path: at(status.name, "/rollout"), body: fast ? { canary, fast } : { canary } } : null),
    done: told(`rollout of ${status.name} started`),
  });
}

/** @param {any} status */
export function promoteRollout(status) {
  let full = false;
  consider({
    title: `Promote ${status.rollout.canary} of ${status.name}`,
    verb: "Promote",
    guarded: true,
    force: true,
    fields: () =>
      h(
        "label.check",
        {},
        h("input", {
          type: "checkbox",
          checked: full,
          onchange: (/** @type {any} */ event) => {
            full = event.target.checked;
            reconsider();
          },
        }),
        h("span", {}, "To the end: it becomes stable now"),
      ),
    request: () => ({ method: "POST", path: at(status.name, "/rollout/promote"), body: full ? { full } : {} }),
    done: told(`rollout of ${status.name} promoted`),
  });
}

/** @param {string} service */
export function pauseRollout(service) {
  consider({
    title: `Pause the rollout of ${service}`,
    verb: "Pause",
    guarded: true,
    lead: "The canary keeps its share, and the judge goes on watching it.",
    request: () => ({ method: "POST", path: at(service, "/rollout/pause"), body: {} }),
    done: told(`rollout of ${service} paused`),
  });
}

/** @param {string} service */
export function resumeRollout(service) {
  consider({
    title: `Resume the rollout of ${service}`,
    verb: "Resume",
    guarded: true,
    request: () => ({ method: "POST", path: at(service, "/rollout/resume"), body: {} }),
    done: told(`rollout of ${service} resumed`),
  });
}

/** What became of a run, in one line. @param {any} answer */
const ran = (answer) => `runbook ${answer.run.runbook} of ${answer.run.service}: ${answer.run.status}, step ${answer.run.step}`;

/** @param {string} service */
export function beginRunbook(service) {
  consider({
    title: `Carry out a runbook for ${service}`,
    verb: "Begin",
    guarded: true,
    lead: "Its steps are done one after the other: it looks how bad it is, chooses a way back and goes it. Steps that are for people wait for a tick.",
    request: () => ({ method: "POST", path: at(service, "/runbook"), body: {} }),
    done: ran,
  });
}

/** @param {string} service @param {any} run */
export function tickStep(service, run) {
  let skip = false;
  const { number, name } = run.steps[run.step - 1];
  consider({
    title: `Step ${number}: ${name}`,
    verb: "Tick",
    guarded: true,
    lead: run.waits_for.for === "approval" ? "It may begin." : "It is done.",
    fields: () =>
      h(
        "label.check",
        {},
        h("input", {
          type: "checkbox",
          checked: skip,
          onchange: (/** @type {any} */ event) => {
            skip = event.target.checked;
            reconsider();
          },
        }),
        h("span", {}, "Pass it over"),
      ),
    request: () => ({ method: "POST", path: at(service, "/runbook/tick"), body: skip ? { step: number, skip } : { step: number } }),
    done: ran,
  });
}

/** @param {string} service */
export function stopRunbook(service) {
  consider({
    title: `Stop the runbook of ${service}`,
    verb: "Stop",
    guarded: true,
    lead: "What it has done stays done.",
    request: () => ({ method: "POST", path: at(service, "/runbook/stop"), body: {} }),
    done: ran,
  });
}
