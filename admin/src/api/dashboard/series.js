// @ts-check
// How backends are told apart: by colour, and for those who do not see it by pattern, line and sign.
//
// A backend looks the same everywhere and for as long as it is configured, whatever role it has. One that
// is called by a colour has that colour.

/** Colours are `--series-N` in tokens.css; signs are drawn, so that they need no font. */
const NAMED = ["blue", "orange", "green", "purple", "pink", "yellow"];

export const DASHES = ["none", "7 4", "2 4", "10 4 2 4", "1 5", "14 4"];

const SIGNS = [
  "M5 0a5 5 0 1 1 0 10A5 5 0 0 1 5 0z",
  "M5 0.3 10 9.5 0 9.5z",
  "M0.6 0.6h8.8v8.8H0.6z",
  "M5 0 10 5 5 10 0 5z",
  "M0 0.5h10L5 9.7z",
  "M3.3 0h3.4v3.3H10v3.4H6.7V10H3.3V6.7H0V3.3h3.3z",
];

/** Looks by name of backend. @param {string[]} names in the order of the file @returns {Record<string, number>} */
export function looks(names) {
  /** @type {Record<string, number>} */
  const looks = {};
  const free = new Set(NAMED.keys());
  for (const name of names) {
    const named = NAMED.findIndex((colour) => name.toLowerCase().includes(colour));
    if (free.has(named)) {
      looks[name] = named;
      free.delete(named);
    }
  }
  for (const name of names) {
    if (!(name in looks)) {
      const [next] = free.size > 0 ? free : [Object.keys(looks).length % NAMED.length];
      looks[name] = next;
      free.delete(next);
    }
  }
  return looks;
}

/** @param {number} look */
export const sign = (look) => SIGNS[look];
