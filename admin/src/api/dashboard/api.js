// @ts-check
// The admin API, asked with somebody's token.
//
// The token is kept in memory, and in the tab's session storage if its owner wants that; it is sent in a
// header and is never part of an address.

const KEPT = "switchback.token";

/** How long an answer may take. Switches may wait for hooks: those who ask say so. */
const PATIENCE_MS = 10_000;

let token = sessionStorage.getItem(KEPT) ?? "";

/** An answer that says no. */
export class Problem extends Error {
  /** @param {number} status @param {any} body */
  constructor(status, body) {
    super(body?.detail ?? `the API answered ${status}`);
    this.status = status;
    /** What it is; never changes its meaning. @type {string} */
    this.code = body?.code ?? "unknown";
    this.body = body ?? {};
  }
}

/** Whether there is a token to ask with. */
export function hasToken() {
  return token !== "";
}

/** @param {string} given @param {boolean} keep over reloads of this tab */
export function setToken(given, keep) {
  token = given;
  if (keep && given) {
    sessionStorage.setItem(KEPT, given);
  } else {
    sessionStorage.removeItem(KEPT);
  }
}

/** @param {Record<string, string>} [more] */
export function headers(more = {}) {
  return { authorization: `Bearer ${token}`, ...more };
}

/**
 * Asks; answers what the API answered, or throws a `Problem`, or whatever `fetch` throws if nobody answers.
 * @param {string} method @param {string} path @param {any} [body]
 * @param {{revision?: number, patience?: number, key?: string}} [options]
 * @returns {Promise<any>}
 */
export async function ask(method, path, body, options = {}) {
  /** @type {Record<string, string>} */
  const more = body === undefined ? {} : { "content-type": "application/json" };
  if (options.revision !== undefined) {
    more["if-match"] = `"${options.revision}"`;
  }
  if (options.key) {
    more["idempotency-key"] = options.key;
  }
  const answer = await fetch(path, {
    method,
    headers: headers(more),
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(options.patience ?? PATIENCE_MS),
  });
  const said = await answer.json().catch(() => null);
  if (!answer.ok) {
    throw new Problem(answer.status, said);
  }
  return said;
}

/** @param {string} path @returns {Promise<any>} */
export const look = (path) => ask("GET", path);

/** Where a service is. @param {string} service @param {string} [rest] */
export const at = (service, rest = "") => `/v1/services/${encodeURIComponent(service)}${rest}`;
