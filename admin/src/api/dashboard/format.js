// @ts-check
// Numbers and times as people read them.

/** @param {number} share 0 to 1 */
export function percent(share) {
  const value = share * 100;
  if (value === 0 || value === 100) {
    return `${value} %`;
  }
  if (value < 0.01) {
    return "< 0.01 %";
  }
  if (value > 99.99) {
    return "> 99.99 %";
  }
  const digits = value < 1 || value > 99 ? 2 : value < 10 || value % 1 !== 0 ? 1 : 0;
  return `${trimmed(value.toFixed(digits))} %`;
}

/** @param {string} text */
function trimmed(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** @param {number} value */
export function count(value) {
  if (value < 10_000) {
    return Math.round(value).toLocaleString("en");
  }
  if (value < 1_000_000) {
    return `${trimmed((value / 1e3).toFixed(value < 100_000 ? 1 : 0))}k`;
  }
  return `${trimmed((value / 1e6).toFixed(1))}M`;
}

/** @param {number} perSecond */
export function rate(perSecond) {
  return perSecond > 0 && perSecond < 10 ? trimmed(perSecond.toFixed(1)) : count(perSecond);
}

/** @param {number | null | undefined} ms */
export function time(ms) {
  if (ms === null || ms === undefined) {
    return "–";
  }
  if (ms >= 1000) {
    return `${trimmed((ms / 1000).toFixed(ms < 10_000 ? 2 : 1))} s`;
  }
  return `${ms < 10 ? trimmed(ms.toFixed(1)) : Math.round(ms)} ms`;
}

/** @param {number} us */
export function micros(us) {
  return us < 1000 ? `${us} µs` : time(us / 1000);
}

/** How long ago, or how long until. @param {number} ms */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) {
    return `${seconds} s`;
  }
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) {
    return seconds % 60 === 0 || minutes >= 10 ? `${minutes} min` : `${minutes} min ${seconds % 60} s`;
  }
  const hours = Math.floor(minutes / 60);
  if (hours < 48) {
    return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`;
  }
  return `${Math.floor(hours / 24)} d`;
}

/** @param {string | number | Date} at */
export function ago(at, now = Date.now()) {
  const ms = now - new Date(at).getTime();
  return ms < 1500 ? "just now" : `${span(ms)} ago`;
}

/** @param {string | number | Date} at */
export function clock(at) {
  return new Date(at).toLocaleTimeString("en-GB");
}

/** @param {string | number | Date} at */
export function moment(at, now = Date.now()) {
  const date = new Date(at);
  const today = new Date(now).toDateString() === date.toDateString();
  return today ? clock(date) : `${date.toLocaleDateString("sv-SE")} ${clock(date)}`;
}

/** A length of time as the API writes it, in milliseconds. @param {string} text */
export function milliseconds(text) {
  const units = { ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };
  let sum = 0;
  for (const [, digits, unit] of text.matchAll(/(\d+)(ms|s|m|h|d)/g)) {
    sum += Number(digits) * units[/** @type {"s"} */ (unit)];
  }
  return sum;
}

/** @param {number} number @param {string} one @param {string} [many] */
export function plural(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
