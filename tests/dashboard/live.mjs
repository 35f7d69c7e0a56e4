// What happens is seen at once, and old numbers are not seen at all.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { browser, enter, load, origin, shop, start, whenSeen } from "./support.mjs";

describe("live", () => {
  let chrome, proxy, blue, green, stopLoad;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
    proxy = await start(shop(blue, green));
    stopLoad = load(proxy.port);
  });

  after(async () => {
    await stopLoad();
    await chrome.close();
    await proxy.stop();
    [blue, green].forEach((one) => one.stop());
  });

  const weights = (blue, green) => proxy.api("PUT", "/v1/services/shop/weights", { weights: { blue, green } });

  test("a change is seen within a second on the service's page and among all services", async () => {
    for (const [hash, bar, share] of [["#/services/shop", ".split-large", 30], ["#/", ".split-small", 40]]) {
      const { page, complaints, close } = await enter(chrome, proxy, { hash });
      await page.locator(bar).first().waitFor();
      const seen = whenSeen(page, bar, "aria-label", `green ${share} %`);
      const asked = Date.now();
      await weights(100 - share, share);
      const took = (await seen) - asked;
      assert.ok(took < 1000, `${hash}: ${took} ms`);
      assert.deepEqual(complaints, []);
      await close();
    }
  });

  test("charts and numbers of each backend move with its requests", async () => {
    await weights(80, 20);
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    for (const chart of ["chart-requests", "chart-errors", "chart-times"]) {
      await page.locator(`#${chart} .plot .line`).first().waitFor({ state: "attached" });
    }
    const points = () => page.locator("#chart-requests .plot .line.series-0").getAttribute("d").then((d) => d.split("L").length);
    const now = await points();
    await page.waitForFunction((now) => document.querySelector("#chart-requests .plot .line.series-0").getAttribute("d").split("L").length >= now + 3, now);
    // Whoever asks for a second is told what was in it.
    const handle = page.getByRole("slider", { name: "Requests a second: second" });
    await handle.focus();
    await page.keyboard.press("ArrowLeft");
    await page.waitForFunction(() => /: blue \d+.*, green \d+/.test(document.querySelector("#chart-requests [role=slider]").getAttribute("aria-valuetext")));
    const row = page.getByRole("row", { name: /^green/ });
    await row.getByText("20 %", { exact: true }).waitFor();
    assert.deepEqual(complaints, []);
    await close();
  });

  test("events arrive while one looks, with who brought them about", async () => {
    const { page, close } = await enter(chrome, proxy, { hash: "#/activity" });
    await page.getByRole("heading", { name: "What happened" }).waitFor();
    await proxy.api("PUT", "/v1/services/shop/weights", { weights: { blue: 65, green: 35 }, reason: "try a third" });
    const changes = page.getByRole("region", { name: "Changes" }).or(page.locator("[aria-label=Changes]"));
    await changes.getByText("“try a third”").waitFor();
    await page.locator("[aria-label=Events]").getByText("by admin-anna").first().waitFor();
    await close();
  });

  test("whether the service can be rolled back is seen, with what is missing", async () => {
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.locator("#ready").getByText("not ready to roll back").waitFor();
    await page.getByText("Not ready to roll back", { exact: true }).click();
    await page.getByText(/the way back was never gone/).waitFor();
    assert.deepEqual(complaints, []);
    await close();
  });

  test("an address that was mistyped shows a page all the same", async () => {
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/activity/%" });
    await page.getByRole("heading", { name: "What happened" }).waitFor();
    assert.deepEqual(complaints, []);
    await close();
  });

  test("a page that is cut off says since when, hides old numbers, and goes on by itself", async () => {
    const { page, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    const share = page.locator(".backends [data-live]").first();
    await share.waitFor();
    await page.context().setOffline(true);
    const notice = page.getByText(/Disconnected since \d\d:\d\d:\d\d/);
    await notice.waitFor();
    assert.equal(await share.isVisible(), false, "an old number is shown");
    assert.equal(await page.locator("#chart-requests .plot-picture").isVisible(), false);
    assert.match(await page.title(), /disconnected/);
    await weights(55, 45);
    await page.context().setOffline(false);
    await notice.waitFor({ state: "detached" });
    await page.getByRole("row", { name: /^green/ }).getByText("45 %", { exact: true }).waitFor();
    assert.ok(await share.isVisible());
    await close();
  });

  test("a process that is gone is noticed", async () => {
    const lone = await start(shop(blue, green));
    const { page, close } = await enter(chrome, lone);
    await page.getByRole("link", { name: "shop", exact: true }).first().waitFor();
    await lone.kill();
    await page.getByText(/Disconnected since/).waitFor();
    await close();
    await lone.stop();
  });
});
