// @ts-check
// The page as a whole: drawn anew from what is known, at most once a frame.

import { render } from "./dom.js";

let view = () => /** @type {any[]} */ ([]);
let queued = false;

/** @param {() => any[]} wanted */
export function show(wanted) {
  view = wanted;
  redraw();
}

/** Something is different. */
export function redraw() {
  if (!queued) {
    queued = true;
    // Frames are not drawn while nobody looks, but what is said aloud and tested is.
    const draw = () => {
      queued = false;
      render(/** @type {Element} */ (document.getElementById("app")), view());
    };
    if (document.hidden) {
      setTimeout(draw, 100);
    } else {
      requestAnimationFrame(draw);
    }
  }
}

/** What is said aloud by screen readers, and shown for a while. @type {{text: string, tone: string, id: number}[]} */
export const toasts = [];

let numbered = 0;

/** @param {string} text @param {"good" | "bad"} [tone] */
export function say(text, tone = "good") {
  const toast = { text, tone, id: (numbered += 1) };
  toasts.push(toast);
  setTimeout(() => {
    toasts.splice(toasts.indexOf(toast), 1);
    redraw();
  }, 8_000);
  redraw();
}
