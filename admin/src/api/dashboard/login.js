// @ts-check
// Asking for a token.

import { Problem, look, setToken } from "./api.js";
import { h } from "./dom.js";
import { icon, logo } from "./icons.js";
import { redraw } from "./page.js";

let problem = "";
let asking = false;

/** @param {string} text why a token is asked for again */
export function explain(text) {
  problem = text;
}

/** @param {() => void} entered */
export function login(entered) {
  return h(
    "main.login",
    { key: "login", id: "content" },
    h(
      "form.card",
      {
        onsubmit: (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          enter(/** @type {HTMLFormElement} */ (event.target), entered);
        },
      },
      h("p.wordmark", {}, logo(), "switchback"),
      h("h1", {}, "Log in"),
      h(
        "label.field",
        {},
        h("span", {}, "Token"),
        h("input", {
          name: "token",
          type: "password",
          autocomplete: "off",
          spellcheck: "false",
          required: true,
          "aria-describedby": "token-hint",
          ref: (/** @type {HTMLElement} */ element) => queueMicrotask(() => element.focus()),
        }),
      ),
      h("p.quiet", { id: "token-hint" }, "It is in ", h("code", {}, "admin.token"), " in the state directory, or comes from ", h("code", {}, "switchback token new"), "."),
      h("label.check", {}, h("input", { name: "keep", type: "checkbox", checked: true }), h("span", {}, "Keep it until this tab is closed")),
      h("div", { "aria-live": "assertive" }, problem && h("p.refusal", {}, icon("bad"), problem)),
      h("button.primary", { type: "submit", disabled: asking }, asking ? "Asking…" : "Log in"),
    ),
  );
}

/** @param {HTMLFormElement} form @param {() => void} entered */
async function enter(form, entered) {
  const fields = new FormData(form);
  asking = true;
  redraw();
  setToken(String(fields.get("token")).trim(), fields.has("keep"));
  try {
    await look("/v1/whoami");
    problem = "";
    entered();
  } catch (error) {
    setToken("", false);
    problem = error instanceof Problem ? error.message : "Nobody answers at this address.";
  }
  asking = false;
  redraw();
}
