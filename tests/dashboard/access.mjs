// Whether everybody can use it: axe finds nothing on any page, in light and in dark.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { browser, enter, eventually, load, origin, shop, start, visit } from "./support.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe has against the page, in a line each. */
async function faults(page) {
  // Things that are on their way to their place have half their colour.
  await page.evaluate(() => Promise.allSettled(document.getAnimations().map((animation) => animation.finished)));
  const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  return violations.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html} ${node.any[0]?.message ?? ""}`));
}

describe("access", () => {
  let chrome, proxy, blue, green, stopLoad;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
    proxy = await start(shop(blue, green, "rollout: {steps: [{weight: 30%, for: 1h}, {weight: 60%, for: 1h, approve: true}]}"));
    stopLoad = load(proxy.port);
    // Something to see everywhere: a rollback, its evidence, a block, and a history.
    await proxy.api("POST", "/v1/services/shop/rollout", { canary: "green", reason: "release 42" });
    green.behaviour.failing = 60;
    await eventually("it is rolled back", async () => (await proxy.api("GET", "/v1/rollbacks")).rollbacks.length === 1);
  });

  after(async () => {
    await stopLoad();
    await chrome.close();
    await proxy.stop();
    [blue, green].forEach((one) => one.stop());
  });

  const PLACES = {
    services: { hash: "#/", ready: (page) => page.getByRole("link", { name: "shop", exact: true }).first().waitFor() },
    service: {
      hash: "#/services/shop",
      ready: async (page) => {
        await page.locator("#news").waitFor();
        await page.locator("#chart-times .plot .line").first().waitFor({ state: "attached" });
      },
    },
    activity: { hash: "#/activity", ready: (page) => page.getByText("“release 42”").waitFor() },
    incidents: { hash: "#/incidents", ready: (page) => page.locator(".incidents a").waitFor() },
    incident: { hash: "#/incidents", ready: async (page) => {
      await page.locator(".incidents a").click();
      await page.getByText("requests reached it").waitFor();
      await page.getByText(/The last \d+ failures/).click();
    } },
    "a dialog": { hash: "#/services/shop", ready: async (page) => {
      await page.getByRole("button", { name: "Adjust split…" }).click();
      await page.getByLabel("Share of green").fill("10");
      await page.getByRole("alert").getByText("Refused").waitFor();
    } },
    "the red button": { hash: "#/", ready: async (page) => {
      await page.locator(".red-button").click();
      await page.getByText("Nothing would change").waitFor();
    } },
    "a lost connection": { hash: "#/services/shop", ready: async (page) => {
      await page.locator("#chart-times .plot .line").first().waitFor({ state: "attached" });
      await page.context().setOffline(true);
      await page.getByText(/Disconnected since/).waitFor();
    } },
  };

  for (const colorScheme of ["light", "dark"]) {
    test(`axe finds nothing at the door in ${colorScheme}`, async () => {
      const { page, close } = await visit(chrome, proxy, { colorScheme, bypassCSP: true });
      await page.getByLabel("Token").waitFor();
      await page.evaluate(AXE);
      assert.deepEqual(await faults(page), []);
      await close();
    });

    for (const [place, { hash, ready }] of Object.entries(PLACES)) {
      test(`axe finds nothing about ${place} in ${colorScheme}`, async () => {
        const { page, close } = await enter(chrome, proxy, { hash, colorScheme, bypassCSP: true });
        await ready(page);
        await page.evaluate(AXE);
        assert.deepEqual(await faults(page), []);
        await close();
      });
    }
  }

  test("light and dark can be chosen, and stay chosen", async () => {
    const { page, close } = await enter(chrome, proxy, { colorScheme: "dark" });
    const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const dark = await ground();
    await page.getByRole("button", { name: "Colours: system" }).click();
    await page.getByRole("button", { name: "Colours: light" }).waitFor();
    const light = await ground();
    assert.notEqual(light, dark);
    await page.reload();
    await page.getByRole("button", { name: "Colours: light" }).waitFor();
    assert.equal(await ground(), light);
    await close();
  });

  test("backends differ by pattern, line and sign, not by colour alone", async () => {
    const { page, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.locator("#chart-requests .plot .line").nth(1).waitFor({ state: "attached" });
    const of = (selector, read) => page.locator(selector).evaluateAll((found, read) => found.map((one) => (read === "style" ? getComputedStyle(one).backgroundImage : one.getAttribute(read))), read);
    for (const [selector, read] of [[".split-large .segment", "style"], ["#chart-requests .plot .line", "stroke-dasharray"], [".backends .mark path", "d"]]) {
      const found = await of(selector, read);
      assert.equal(new Set(found).size, 2, `${selector}: ${found}`);
    }
    await close();
  });
});
