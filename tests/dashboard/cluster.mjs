// Instances that share one state: who is there and who follows, and what an instance does without the others. What
// the API would say of them is put into its answer on its way to the page.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { browser, enter, origin, shop, start } from "./support.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const instance = (name, more = {}) => ({ name, alive: true, draining: false, revision: 9, lag: 0, baseline: "aa", baseline_differs: false, release: "0.1.0", admin: "127.0.0.1:9900", started: "2026-01-02T03:04:05Z", ...more });

const cluster = (more = {}) => ({
  name: "shop-edge",
  instance: "edge-1",
  contact: "joined",
  away: null,
  leader: "edge-2",
  head: { revision: 9, hash: "00" },
  instances: [instance("edge-1"), instance("edge-2"), instance("edge-3")],
  ...more,
});

describe("cluster", () => {
  let chrome, proxy, blue, green;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
    proxy = await start(shop(blue, green, ""));
  });

  after(async () => {
    await chrome.close();
    await proxy.stop();
    [blue, green].forEach((one) => one.stop());
  });

  /** A page whose API speaks of a cluster; what it speaks of may be changed. */
  const visit = async (told) => {
    const visit_ = await enter(chrome, proxy, { bypassCSP: true });
    await visit_.page.route("**/v1/overview", async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, json: { ...(await answer.json()), cluster: told.cluster } });
    });
    return visit_;
  };

  test("a switchback that is alone says nothing of instances", async () => {
    const { page, complaints, close } = await enter(chrome, proxy);
    await page.getByText("revision 0").waitFor();
    assert.equal(await page.locator(".instances").count(), 0);
    assert.equal(await page.getByText(/instances?$/).count(), 0);
    assert.deepEqual(complaints, []);
    await close();
  });

  test("who leads, lags, is drained or gone is told in words", async () => {
    const told = { cluster: cluster() };
    const { page, complaints, close } = await visit(told);
    const row = (name) => page.locator(".instances li").filter({ hasText: name });
    await page.getByText("3 of 3 instances").waitFor();
    await row("edge-1").getByText("this one", { exact: true }).waitFor();
    await row("edge-2").getByText("leads", { exact: true }).waitFor();
    assert.equal(await page.getByRole("alert").count(), 0);
    told.cluster = cluster({
      leader: null,
      instances: [instance("edge-1", { draining: true }), instance("edge-2", { lag: 2, baseline_differs: true }), instance("edge-3", { alive: false, lag: null })],
    });
    await page.getByText("2 of 3 instances").waitFor();
    await page.getByText("Nobody leads: rollouts stand still.").waitFor();
    await row("edge-1").getByText("this one, drained").waitFor();
    await row("edge-2").getByText("2 changes behind, another config file").waitFor();
    await row("edge-3").getByText("gone").waitFor();
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"] }));
    assert.deepEqual(violations.map(({ id }) => id), []);
    assert.deepEqual(complaints, []);
    await close();
  });

  test("an instance without etcd says so on every page until it is back", async () => {
    const away = { since: new Date(Date.now() - 61_000).toISOString(), reason: "no answer within 2 s", isolated: false };
    const told = { cluster: cluster({ contact: "away", away }) };
    const { page, complaints, close } = await visit(told);
    const alert = page.getByRole("alert");
    await alert.getByText(/^edge-1: etcd away since \d\d:\d\d:\d\d \(1 min/).waitFor();
    await alert.getByText("other changes are refused").waitFor();
    await alert.getByText("no answer within 2 s").waitFor();
    told.cluster = cluster({ contact: "away", away: { ...away, isolated: true } });
    await alert.getByText("Canaries have weight 0 on this instance").waitFor();
    await page.goto(`${proxy.ui}#/services/shop`);
    await alert.getByText("Canaries have weight 0 on this instance").waitFor();
    told.cluster = cluster();
    await alert.waitFor({ state: "detached" });
    assert.deepEqual(complaints, []);
    await close();
  });
});
