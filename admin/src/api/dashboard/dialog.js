// @ts-check
// Asking before something is done: what it would change, as the API works it out, and only then the button.
//
// A rollback never waits for its own preview: the button works at once. What is refused stays open, with the
// reason.

import { Problem, ask } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { beforeAfter } from "./incidents.js";
import { refresh } from "./live.js";
import { redraw, say } from "./page.js";
import { looks } from "./series.js";

/** Refusals that `force` overrides. */
const FORCEABLE = ["target_unhealthy", "judge_holds", "before_switch_failed", "no_target"];

/** After the last change of a field, before it is asked what it would do. */
const CALM_MS = 150;

/** Hooks may be asked before a switch, and take their time. */
const PATIENCE_MS = 600_000;

/**
 * @typedef {{title: string, verb: string, danger?: boolean, urgent?: boolean, lead?: any, fields?: () => any,
 *   request: () => null | {method: string, path: string, body: any}, guarded?: boolean, force?: boolean,
 *   done: (answer: any) => string}} Plan
 *   `urgent`: may be confirmed before it is known what it would do. `guarded`: only if nothing has changed since.
 */

/** @type {null | {plan: Plan, asked: number, known: any, problem: Problem | Error | null, sending: boolean, reason: string, force: boolean, tries: string}} */
let open = null;

let timer = /** @type {any} */ (0);

/** What nobody else thinks of. `randomUUID` is missing where the page came without TLS from another machine. */
function chance() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {Plan} plan */
export function consider(plan) {
  open = { plan, asked: 0, known: null, problem: null, sending: false, reason: "", force: false, tries: chance() };
  preview();
  redraw();
}

export function close() {
  open = null;
  clearTimeout(timer);
  // Gives the focus back to where it was.
  /** @type {HTMLDialogElement | null} */ (document.querySelector("dialog[open]"))?.close();
  redraw();
}

/** Something about the plan is different: what would it do now? */
export function reconsider() {
  clearTimeout(timer);
  timer = setTimeout(preview, CALM_MS);
  redraw();
}

/** The request with what the dialog itself asks for. */
function request() {
  const wanted = open?.plan.request();
  if (!open || !wanted) {
    return null;
  }
  const body = { ...wanted.body };
  if (open.reason.trim()) {
    body.reason = open.reason.trim();
  }
  if (open.force) {
    body.force = true;
  }
  return { ...wanted, body };
}

async function preview() {
  const mine = open;
  const wanted = request();
  if (!mine || !wanted) {
    if (mine) {
      mine.known = null;
      redraw();
    }
    return;
  }
  const number = (mine.asked += 1);
  try {
    const known = await ask(wanted.method, `${wanted.path}?dry_run=true`, wanted.body);
    if (number === mine.asked) {
      Object.assign(mine, { known, problem: null });
    }
  } catch (error) {
    if (number === mine.asked) {
      Object.assign(mine, { known: null, problem: error });
    }
  }
  redraw();
}

async function confirm() {
  const mine = open;
  const wanted = request();
  if (!mine || !wanted || mine.sending) {
    return;
  }
  mine.sending = true;
  redraw();
  const revision = mine.plan.guarded ? mine.known?.revision : undefined;
  try {
    const answer = await ask(wanted.method, wanted.path, wanted.body, { revision, patience: PATIENCE_MS, key: mine.tries });
    say(mine.plan.done(answer));
    if (open === mine) {
      close();
    }
  } catch (error) {
    mine.problem = /** @type {Error} */ (error);
    if (error instanceof Problem && error.status === 412) {
      await preview();
      mine.problem = new Error("Something was changed meanwhile. Below is what it would do now: look, and confirm again.");
    }
  }
  mine.sending = false;
  refresh();
  redraw();
}

/** The dialog, if one is open. */
export function dialog() {
  if (!open) {
    return null;
  }
  const { plan, known, sending, problem } = open;
  const ready = !sending && request() !== null && (plan.urgent || known?.changed !== false) && (plan.urgent || known || !problem);
  return h(
    "dialog.ask",
    {
      key: "dialog",
      "aria-labelledby": "dialog-title",
      ref: (/** @type {HTMLDialogElement} */ element) =>
        queueMicrotask(() => {
          element.showModal();
          /** @type {HTMLElement | null} */ (element.querySelector("[data-first]") ?? element.querySelector(".confirm"))?.focus();
        }),
      onclose: close,
      onclick: (/** @type {MouseEvent} */ event) => {
        // A click beside the dialog; what such a listener returns must not be `false`.
        if (event.target === event.currentTarget) {
          close();
        }
      },
    },
    h(
      "form",
      {
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          if (ready) {
            confirm();
          }
        },
      },
      h("h2", { id: "dialog-title" }, plan.title),
      plan.lead && h("p.quiet", {}, plan.lead),
      plan.fields?.(),
      h("div.plan", { "aria-live": "polite" }, refusal(problem), known && planned(known), !known && !problem && h("p.quiet", {}, request() ? "Working out what it would change…" : "")),
      forcing(plan, problem),
      reason(),
      h(
        "div.row.ends",
        {},
        h("button", { type: "button", onclick: close }, "Cancel"),
        h("button.confirm", { type: "submit", class: plan.danger ? "danger" : "primary", disabled: !ready }, sending ? "On its way…" : plan.verb),
      ),
    ),
  );
}

function reason() {
  return h(
    "label.field",
    {},
    h("span", {}, "Reason, for the record"),
    h("input", {
      type: "text",
      maxlength: "1000",
      autocomplete: "off",
      placeholder: "optional",
      oninput: (/** @type {any} */ event) => {
        if (open) {
          open.reason = event.target.value;
        }
      },
    }),
  );
}

/** @param {Plan} plan @param {Error | null} problem */
function forcing(plan, problem) {
  const offered = plan.force && (open?.force || (problem instanceof Problem && FORCEABLE.includes(problem.code)));
  return (
    offered &&
    h(
      "label.check",
      {},
      h("input", {
        type: "checkbox",
        checked: open?.force ?? false,
        onchange: (/** @type {any} */ event) => {
          if (open) {
            open.force = event.target.checked;
            reconsider();
          }
        },
      }),
      h("span", {}, "Do it all the same (force)"),
    )
  );
}

/** @param {Error | null} problem */
function refusal(problem) {
  if (!problem) {
    return null;
  }
  const refused = problem instanceof Problem;
  return h(
    "div.refusal",
    { role: "alert" },
    icon("bad"),
    h(
      "div",
      {},
      h("strong", {}, refused ? "Refused" : "Not done"),
      h("p", {}, problem.message),
      refused && h("code", {}, problem.code),
      refused && problem.body.output && h("pre", {}, problem.body.output),
    ),
  );
}

/** What would be different. @param {any} known */
function planned(known) {
  if (known.services) {
    return several(known);
  }
  if ("run" in known) {
    return runs(known.run);
  }
  const colours = looks(Object.keys(known.weights));
  return [
    known.changed ? null : h("p.unchanged", {}, icon("ok"), "Nothing would change: it is so already."),
    known.changed && beforeAfter(known.before.weights, known.weights, colours),
    known.changed && h("table.diff", {}, h("caption", {}, "What would change"), h("tbody", {}, changes(known.changes))),
    known.notes.map((/** @type {string} */ note) => h("p.note", { key: note }, note)),
  ];
}

/** @param {any} value @returns {string} */
function shown(value) {
  if (value === null || value === undefined) {
    return "–";
  }
  if (Array.isArray(value)) {
    return value.length > 0 ? value.map(shown).join(", ") : "none";
  }
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** @param {any[]} changes */
function changes(changes) {
  return changes.map(({ path, before, after }) =>
    h(
      "tr",
      { key: path },
      h("th", { scope: "row" }, path),
      h("td.before", {}, h("span.aside", {}, "from "), shown(before)),
      h("td.arrow", { "aria-hidden": "true" }, "→"),
      h("td.after", {}, h("span.aside", {}, "to "), shown(after)),
    ),
  );
}

/** What becomes of a runbook. @param {any} run */
function runs(run) {
  if (!run || run.ended) {
    return h("p", {}, run?.ended.reason ?? "Nothing would change.");
  }
  const next = run.steps[run.step - 1];
  return h("p", {}, `Step ${next.number} would be under way: ${next.name}. ${next.action}`);
}

/** @param {any} known of a rollback of all services */
function several(known) {
  const changed = known.services.filter((/** @type {any} */ one) => one.changed);
  const refused = known.services.filter((/** @type {any} */ one) => one.problem);
  return [
    h("p", {}, changed.length === 0 ? "Nothing would change: no service has anything to go back from." : `${changed.length} of ${known.services.length} services would go back:`),
    h(
      "ul.several",
      {},
      changed.slice(0, 20).map((/** @type {any} */ one) => h("li", { key: one.service }, h("strong", {}, one.service), h("span.number", {}, one.diff.split("\n").join("; ")))),
      changed.length > 20 && h("li", {}, `and ${changed.length - 20} more`),
      refused.map((/** @type {any} */ one) => h("li", { key: one.service }, icon("bad"), h("strong", {}, one.service), `refuses: ${one.problem.detail}`)),
    ),
  ];
}
