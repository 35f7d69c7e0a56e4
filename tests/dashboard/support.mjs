// What the tests of the dashboard need: backends, load, a switchback, and a browser.

import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

const ROOT = resolve(import.meta.dirname, "../..");
const BINARY = process.env.SWITCHBACK ?? join(ROOT, "target/debug/switchback");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** How long anything may take that should take no time at all: a loaded machine is no bug. */
export const DEADLINE = 20_000;

/** Asks until something holds. */
export async function eventually(what, holds) {
  const began = Date.now();
  for (;;) {
    if (await holds()) {
      return;
    }
    if (Date.now() - began > DEADLINE) {
      throw new Error(`not in time: ${what}`);
    }
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** A backend that answers as told. */
export async function origin() {
  const behaviour = { failing: 0, healthy: true, ms: 4 };
  let number = 0;
  const server = http.createServer((request, response) => {
    if (request.url === "/healthz") {
      response.writeHead(behaviour.healthy ? 200 : 500).end();
      return;
    }
    number += 1;
    // Evenly: so many of a hundred.
    const fails = (number * behaviour.failing) % 100 < behaviour.failing;
    setTimeout(() => response.writeHead(fails ? 500 : 200).end("hello\n"), behaviour.ms * (0.5 + Math.random()));
  });
  server.keepAliveTimeout = 60_000;
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    behaviour,
    url: `http://127.0.0.1:${server.address().port}`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Requests, some at a time, until it is stopped. */
export function load(port, clients = 6, pauseMs = 20) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: clients });
  let going = true;
  const client = async () => {
    while (going) {
      await new Promise((done) => {
        const request = http.get({ port, host: "127.0.0.1", agent }, (response) => response.resume().on("close", done));
        request.on("error", done);
      });
      await new Promise((done) => setTimeout(done, pauseMs * 2 * Math.random()));
    }
  };
  const clientsDone = Promise.all(Array.from({ length: clients }, client));
  return async () => {
    going = false;
    await clientsDone;
    agent.destroy();
  };
}

const HEAD = `version: 1
workers: 1
admin: {address: "127.0.0.1:0", tokens_file: tokens.yaml}
access_log: {format: "off"}
listeners: {web: {address: "127.0.0.1:0"}}
`;

/** The service `shop` with blue (stable, version 41) and green (42). */
export const shop = (blue, green, more = "") => `routes: [{service: shop}]
services:
  shop:
    stable: blue
    weights: {blue: 100, green: 0}
    backends:
      blue: {version: "41", endpoints: ["${blue.url}"]}
      green: {version: "42", endpoints: ["${green.url}"]}
    rescue: {enabled: false}
${more.split("\n").map((line) => `    ${line}`).join("\n")}
`;

/** So many services at the same two backends. */
export const many = (count, blue, green) => {
  const names = Array.from({ length: count }, (_, number) => String(number).padStart(4, "0"));
  const routes = names.map((name) => `  - {host: s${name}.example, service: service-${name}}`);
  const services = names.map(
    (name) =>
      `  service-${name}: {stable: blue, weights: {blue: 95, green: 5}, backends: {blue: {version: "41", endpoints: ["${blue.url}"]}, green: {version: "42-${name}", endpoints: ["${green.url}"]}}}`,
  );
  return `routes:\n${routes.join("\n")}\nservices:\n${services.join("\n")}\n`;
};

const ROLES = ["viewer", "rollback", "operator", "admin"];

/** A running switchback in a directory of its own, with a token for each role. */
export async function start(config) {
  const directory = mkdtempSync(join(tmpdir(), "switchback-dashboard-"));
  const tokens = Object.fromEntries(ROLES.map((role) => [role, randomBytes(32).toString("hex")]));
  const entries = ROLES.map((role) => {
    const sha256 = createHash("sha256").update(tokens[role]).digest("hex");
    return `- {name: ${role}-anna, role: ${role}, sha256: "${sha256}"}\n`;
  });
  writeFileSync(join(directory, "tokens.yaml"), entries.join(""));
  writeFileSync(join(directory, "switchback.yaml"), HEAD + config);
  const child = spawn(BINARY, ["run", "--config", "switchback.yaml", "--state-dir", "state"], { cwd: directory });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (text) => (log += text));
  }
  const ended = new Promise((end) => child.on("exit", end));
  const run = join(directory, "state/run.json");
  await eventually("switchback listens", () => {
    if (child.exitCode !== null) {
      throw new Error(`switchback ended: ${log}`);
    }
    return existsSync(run);
  });
  const { admin, listeners } = JSON.parse(readFileSync(run, "utf8"));
  const address = `http://${admin}`;
  return {
    address,
    ui: `${address}/ui/`,
    port: Number(listeners.web.split(":").at(-1)),
    tokens,
    api: async (method, path, body) => {
      const headers = { authorization: `Bearer ${tokens.admin}` };
      if (body !== undefined) {
        headers["content-type"] = "application/json";
      }
      const answer = await fetch(address + path, { method, headers, body: body && JSON.stringify(body) });
      const said = await answer.json();
      if (!answer.ok) {
        throw new Error(`${method} ${path}: ${answer.status} ${said.detail}`);
      }
      return said;
    },
    /** Another file. */
    write: (text) => {
      writeFileSync(join(directory, "new.yaml"), text);
      renameSync(join(directory, "new.yaml"), join(directory, "switchback.yaml"));
    },
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
    stop: async () => {
      child.kill("SIGKILL");
      await ended;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** One browser for all tests. */
export const browser = () => chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

/** A page of somebody who has just opened the address. Whatever the browser complains about is kept. */
export async function visit(browser, proxy, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(DEADLINE);
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.stack));
  page.on("console", (message) => {
    // A refusal is no fault of the page; the browser says so all the same.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
      complaints.push(message.text());
    }
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(proxy.address)) {
      complaints.push(`asked ${request.url()}`);
    }
  });
  await page.goto(proxy.ui);
  return { page, complaints, close: () => context.close() };
}

/** The same of somebody who has logged in. */
export async function enter(browser, proxy, { role = "admin", hash = "#/", ...options } = {}) {
  const visit_ = await visit(browser, proxy, options);
  await logIn(visit_.page, proxy.tokens[role]);
  if (hash !== "#/") {
    await visit_.page.goto(`${proxy.ui}${hash}`);
  }
  return visit_;
}

export async function logIn(page, token) {
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator("main h1").filter({ hasNotText: "Log in" }).waitFor();
}

/** When something about the page first holds, by the browser's clock, which is ours. */
export function whenSeen(page, selector, attribute, text) {
  return page.evaluate(
    ([selector, attribute, text]) =>
      new Promise((seen) => {
        const look = () => {
          const element = document.querySelector(selector);
          const said = attribute ? element?.getAttribute(attribute) : element?.textContent;
          if (said?.includes(text)) {
            seen(Date.now());
            return true;
          }
          return false;
        };
        if (!look()) {
          const observer = new MutationObserver(() => look() && observer.disconnect());
          observer.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
        }
      }),
    [selector, attribute, text],
  );
}
