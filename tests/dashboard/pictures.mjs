// Pictures of a rollback under way, for the documentation: nothing in them is staged but the bad version.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { browser, enter, load, origin, shop, start } from "./support.mjs";

const PLACE = join(import.meta.dirname, "../../docs/pictures");

/** How long all is well beforehand, so that there is something to compare with. */
const BEFORE_MS = 75_000;

/** After the rollback: the bar has moved, the evidence is there. */
const AFTER_MS = 5_500;

const ROLLOUT = `health: {path: /healthz, interval: 1s, timeout: 1s, rise: 1, fall: 3}
rollout: {steps: [{weight: 5%, for: 20s}, {weight: 25%, for: 5m}, {weight: 50%, for: 10m, approve: true}], bake: {holdback: 2%, for: 30m}}`;

const LOOKS = {
  "dashboard-dark": { colorScheme: "dark", viewport: { width: 1440, height: 1120 } },
  "dashboard-light": { colorScheme: "light", viewport: { width: 1440, height: 1120 } },
  "dashboard-phone": { colorScheme: "dark", viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 },
};

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

const [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
blue.behaviour.ms = 14;
green.behaviour.ms = 11;
const config = shop(blue, green, ROLLOUT).replace('"41"', '"2026.11.4"').replace('"42"', '"2026.11.5"');
const proxy = await start(config);
const stopLoad = load(proxy.port, 6, 60);
await wait(BEFORE_MS / 2);
await proxy.api("POST", "/v1/services/shop/rollout", { canary: "green", reason: "release 2026.11.5: faster baskets" });
await wait(BEFORE_MS / 2);
const pages = {};
for (const [name, look] of Object.entries(LOOKS)) {
  const { page } = await enter(chrome, proxy, { ...look, hash: "#/services/shop" });
  await page.getByRole("button", { name: "2 min" }).click();
  pages[name] = page;
}
green.behaviour.failing = 12;
await pages["dashboard-dark"].locator("#news").waitFor({ timeout: 60_000 });
await wait(AFTER_MS);
mkdirSync(PLACE, { recursive: true });
for (const [name, page] of Object.entries(pages)) {
  await page.screenshot({ path: join(PLACE, `${name}.png`) });
}
await stopLoad();
await chrome.close();
await proxy.stop();
[blue, green].forEach((one) => one.stop());
