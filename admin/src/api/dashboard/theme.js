// @ts-check
// Light or dark: as the system says, unless somebody wants it otherwise.

const KEPT = "switchback.theme";

/** @typedef {"system" | "light" | "dark"} Theme */

/** @type {Theme[]} */
const THEMES = ["system", "light", "dark"];

export const theme = {
  /** @type {Theme} */
  now: THEMES.find((theme) => theme === localStorage.getItem(KEPT)) ?? "system",
};

/** The next one. */
export function turn() {
  theme.now = THEMES[(THEMES.indexOf(theme.now) + 1) % THEMES.length];
  localStorage.setItem(KEPT, theme.now);
  apply();
}

export function apply() {
  document.documentElement.dataset.theme = theme.now;
}
