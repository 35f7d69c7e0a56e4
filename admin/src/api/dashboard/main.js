// @ts-check
// The frame around every page: where one is, what can be reached from everywhere, and whether it is live.

import { can, rollBack } from "./actions.js";
import { hasToken, setToken } from "./api.js";
import { lostCluster } from "./cluster.js";
import { concerns, rank, worst } from "./concerns.js";
import { close, dialog } from "./dialog.js";
import { h } from "./dom.js";
import { ago, clock } from "./format.js";
import { icon, logo } from "./icons.js";
import { incident, incidents } from "./incidents.js";
import { attend, begin, end, known } from "./live.js";
import { explain, login } from "./login.js";
import { redraw, show, toasts } from "./page.js";
import { service } from "./service.js";
import { matching, services, want, wanted } from "./services.js";
import { apply, theme, turn } from "./theme.js";
import { happenings, timeline } from "./timeline.js";

const REVISIONS = "/v1/revisions?limit=100";
const ROLLBACKS = "/v1/rollbacks?limit=100";

/** Where one is. */
function route() {
  const [, page = "", ...rest] = location.hash.replace(/^#/, "").split("/");
  return { page, name: decoded(rest.join("/")) };
}

/** What stands for a name in an address; one that was mistyped stands for itself. @param {string} name */
function decoded(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** Asks for what the page is about. @param {{page: string, name: string}} place */
function attendTo({ page, name }) {
  const record = `/v1/rollbacks/${encodeURIComponent(name)}`;
  const pages = page === "activity" ? [REVISIONS] : page === "incidents" ? [name ? record : ROLLBACKS] : [];
  attend(page === "services" ? name : "", pages);
}

/** @param {string} path @param {(found: any) => any} view */
function page(path, view) {
  const page = known.pages.get(path);
  if (page?.problem) {
    return h("p.lead", {}, page.problem.message);
  }
  return page?.found ? view(page.found) : h("p.quiet", {}, "Looking…");
}

/** @param {string} title @param {any} inside */
const titled = (title, inside) => h("div.page", { key: title }, h("header.page-head", {}, h("h1", { tabindex: "-1" }, title)), inside);

function content() {
  const { page: which, name } = route();
  if (!known.overview) {
    return h("div.page", { key: "waiting" }, h("p.quiet", {}, known.disconnected ? "Nobody answers." : "Looking…"));
  }
  if (which === "services" && name) {
    return service(name);
  }
  if (which === "activity") {
    return titled("Activity", [
      h(
        "div.grid",
        {},
        h("section.card", { "aria-label": "Changes" }, h("h2", {}, "Who changed what"), page(REVISIONS, ({ revisions }) => timeline(revisions, { services: true }))),
        h("section.card", { "aria-label": "Events" }, h("h2", {}, "What happened"), happenings(known.events)),
      ),
    ]);
  }
  if (which === "incidents" && name) {
    return h("div.page", { key: `incident ${name}` }, page(`/v1/rollbacks/${encodeURIComponent(name)}`, incident));
  }
  if (which === "incidents") {
    return titled("Incidents", h("section.card", {}, page(ROLLBACKS, ({ rollbacks }) => incidents(rollbacks, true))));
  }
  return services();
}

function frame() {
  if (!hasToken()) {
    return [login(enter), said()];
  }
  document.title = title();
  return [
    h("a.skip", { href: "#content", onclick: skip }, "Skip to content"),
    h("div.frame", { key: "frame", class: known.disconnected ? "disconnected" : "" }, bar(), lost(), !known.disconnected && lostCluster(known.overview?.cluster), h("main", { id: "content", tabindex: "-1" }, content())),
    dialog(),
    said(),
  ];
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function title() {
  const { page: which, name } = route();
  const wrong = known.overview?.services.filter((/** @type {any} */ glance) => rank(worst(concerns(glance))) >= 2).length ?? 0;
  const where = which === "services" && name ? name : which;
  const state = known.disconnected ? "disconnected" : wrong > 0 ? `▲ ${wrong}` : "";
  return [state, where, "switchback"].filter(Boolean).join(" · ");
}

function bar() {
  const { page: which } = route();
  const link = (/** @type {string} */ to, /** @type {"services"} */ shape, /** @type {string} */ text, /** @type {boolean} */ here) =>
    h("a", { href: `#/${to}`, "aria-current": here ? "page" : null }, icon(shape), h("span", {}, text));
  return h(
    "header.bar",
    {},
    h("a.wordmark", { href: "#/", "aria-label": "switchback, all services" }, logo(), h("span", {}, "switchback")),
    h(
      "nav.nav",
      { "aria-label": "Pages" },
      link("", "services", "Services", which === "" || which === "services"),
      link("activity", /** @type {any} */ ("activity"), "Activity", which === "activity"),
      link("incidents", /** @type {any} */ ("incidents"), "Incidents", which === "incidents"),
    ),
    search(),
    liveness(),
    can("rollback") && h("button.danger.red-button", { onclick: () => rollBack(here()), "aria-keyshortcuts": "Alt+R", title: "Roll back (Alt+R)" }, icon("back"), h("span", {}, "Roll back"), here() && h("span.red-name", {}, ` ${here()}`)),
    h("button.plain", { onclick: turnTheme, title: `Colours: ${theme.now}`, "aria-label": `Colours: ${theme.now}` }, icon(theme.now === "light" ? "sun" : theme.now === "dark" ? "moon" : "system")),
    h("button.plain", { onclick: () => leave(""), title: `Log out ${known.identity?.name ?? ""} (${known.identity?.role ?? ""})`, "aria-label": "Log out" }, icon("out")),
  );
}

/** The service that the page is about. */
function here() {
  const { page: which, name } = route();
  return which === "services" && name ? name : undefined;
}

function turnTheme() {
  turn();
  redraw();
}

function search() {
  return h(
    "label.search",
    {},
    icon("search"),
    h("span.aside", {}, "Search services"),
    h("input", {
      type: "search",
      id: "search",
      placeholder: "Search services",
      autocomplete: "off",
      spellcheck: "false",
      "aria-keyshortcuts": "Control+K",
      value: wanted.text,
      oninput: (/** @type {any} */ event) => {
        want({ text: event.target.value });
        if (route().page !== "" || route().name) {
          location.hash = "#/";
        }
      },
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const [first] = event.key === "Enter" && known.overview ? matching() : [];
        if (first) {
          location.hash = `#/services/${encodeURIComponent(first.glance.name)}`;
        }
      },
    }),
    h("kbd", { "aria-hidden": "true" }, "Ctrl K"),
  );
}

function liveness() {
  return h(
    "p.liveness",
    { class: known.disconnected ? "lost" : "" },
    h("span.dot", { "aria-hidden": "true" }),
    known.disconnected ? "Disconnected" : known.overview ? "Live" : "Connecting",
  );
}

/** Instead of old numbers. */
function lost() {
  return (
    known.disconnected &&
    h(
      "div.notice.level-bad.lost-notice",
      { key: "lost", role: "alert" },
      icon("bad"),
      h("p", {}, h("strong", {}, `Disconnected since ${clock(known.disconnected)}. `), `Numbers are hidden until switchback answers again; it is asked every second (${ago(known.disconnected)}).`),
    )
  );
}

function said() {
  return h(
    "div.toasts",
    { key: "toasts", role: "status", "aria-live": "polite" },
    toasts.map((toast) => h(`p.toast.${toast.tone}`, { key: String(toast.id) }, icon(toast.tone === "good" ? "ok" : "bad"), toast.text)),
  );
}

function enter() {
  begin(redraw, (problem) => leave(problem.message));
  attendTo(route());
  redraw();
}

/** @param {string} because */
function leave(because) {
  setToken("", false);
  end();
  close();
  explain(because);
  redraw();
}

addEventListener("hashchange", () => {
  close();
  attendTo(route());
  redraw();
  // Whoever reads by ear is told where they are.
  requestAnimationFrame(() => {
    scrollTo({ top: 0 });
    if (document.activeElement?.id !== "search") {
      /** @type {HTMLElement | null} */ (document.querySelector("h1"))?.focus({ preventScroll: true });
    }
  });
});

addEventListener("keydown", (event) => {
  if (!hasToken() || document.querySelector("dialog[open]")) {
    return;
  }
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    document.getElementById("search")?.focus();
  } else if (event.altKey && event.code === "KeyR" && can("rollback")) {
    event.preventDefault();
    rollBack(here());
  }
});

apply();
show(frame);
if (hasToken()) {
  enter();
}
