// The red button, and the judge pressing it.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { browser, enter, eventually, load, origin, shop, start } from "./support.mjs";

describe("rollback", () => {
  let chrome, proxy, blue, green, stopLoad;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
    proxy = await start(shop(blue, green, "health: {path: /healthz, interval: 200ms, timeout: 200ms, rise: 1, fall: 1}"));
    stopLoad = load(proxy.port);
  });

  after(async () => {
    await stopLoad();
    await chrome.close();
    await proxy.stop();
    [blue, green].forEach((one) => one.stop());
  });

  const service = () => proxy.api("GET", "/v1/services/shop");

  beforeEach(async () => {
    Object.assign(green.behaviour, { failing: 0, healthy: true });
    Object.assign(blue.behaviour, { failing: 0, healthy: true });
    await eventually("both are healthy", async () => {
      const { backends } = await service();
      return backends.blue.health === "healthy" && backends.green.health === "healthy";
    });
    if ((await service()).backends.green.blocked) {
      await proxy.api("POST", "/v1/services/shop/backends/green/unblock");
    }
    await proxy.api("PUT", "/v1/services/shop/weights", { weights: { blue: 70, green: 30 } });
  });

  test("a bad canary is rolled back before one's eyes, with the judge's sentence", async () => {
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.locator(".split-large[aria-label='Split: blue 70 %, green 30 %']").waitFor();
    await page.getByText("nothing against it").waitFor();
    green.behaviour.failing = 60;
    const news = page.locator("#news");
    await news.getByText(/green 42 was rolled back by the judge/).waitFor();
    await news.getByText(/canary failed \d+ of \d+/).waitFor();
    await page.locator(".split-large[aria-label='Split: blue 100 %, green 0 %']").waitFor();
    await page.getByRole("row", { name: /^green/ }).getByText("blocked").waitFor();
    await page.locator(".blocked-card").getByText("version 42").waitFor();
    await page.locator("#chart-errors .moment-bad").first().waitFor({ state: "attached" });
    await page.locator(".history-card").getByText("rollback", { exact: true }).first().waitFor();
    await news.getByRole("link", { name: "Evidence" }).click();
    await page.getByRole("heading", { name: "green 42 was rolled back" }).waitFor();
    await page.getByText("evidence replayed: same verdict").waitFor();
    await page.getByText("requests reached it").waitFor();
    assert.deepEqual(complaints, []);
    await close();
  });

  test("a judge that may not roll back says what it does instead", async () => {
    const other = await start(shop(blue, green, "rollback: {on_failure: hold}"));
    const stopOther = load(other.port);
    await other.api("PUT", "/v1/services/shop/weights", { weights: { blue: 70, green: 30 } });
    const { page, complaints, close } = await enter(chrome, other, { hash: "#/services/shop" });
    const card = page.locator(".judge-card");
    await card.getByText("1 holds and pages").waitFor();
    green.behaviour.failing = 60;
    await card.locator(".verdict").getByText("holds and pages").waitFor();
    assert.equal(await card.getByText("rolls back").count(), 0);
    assert.equal((await other.api("GET", "/v1/services/shop")).weights.green, 30);
    assert.deepEqual(complaints, []);
    await close();
    await stopOther();
    await other.stop();
  });

  test("one click and a confirmation roll back from any page in under two seconds", async () => {
    for (const hash of ["#/", "#/services/shop", "#/activity", "#/incidents"]) {
      await proxy.api("PUT", "/v1/services/shop/weights", { weights: { blue: 70, green: 30 } });
      const { page, close } = await enter(chrome, proxy, { hash });
      await page.locator(".page h1").waitFor();
      const began = Date.now();
      await page.locator(".red-button").click();
      await page.getByRole("button", { name: "Roll back now" }).click();
      await page.locator(".toast").getByText("shop rolled back: in force on every worker").waitFor();
      const took = Date.now() - began;
      assert.deepEqual((await service()).weights, { blue: 100, green: 0 });
      assert.ok(took < 2000, `${hash}: ${took} ms`);
      await proxy.api("POST", "/v1/services/shop/backends/green/unblock");
      await close();
    }
  });

  test("what a rollback would change is shown before it is confirmed", async () => {
    const { page, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.locator(".red-button").click();
    const dialog = page.getByRole("dialog", { name: "Roll back shop" });
    await dialog.getByRole("img", { name: "Before: blue 70 %, green 30 %" }).waitFor();
    await dialog.getByRole("img", { name: "After: blue 100 %, green 0 %" }).waitFor();
    await dialog.getByRole("row", { name: "weights.green from 30 to 0" }).waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    assert.equal((await service()).weights.green, 30, "nothing has changed");
    await close();
  });

  test("a rollback that would take the last healthy backend is refused with the reason, until it is forced", async () => {
    blue.behaviour.healthy = false;
    await eventually("blue is down", async () => (await service()).backends.blue.health === "unhealthy");
    const { page, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.locator(".red-button").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("alert").getByText('backend "blue" has no healthy endpoint; force overrides').waitFor();
    await dialog.getByRole("button", { name: "Roll back now" }).click();
    await dialog.getByText("target_unhealthy").waitFor();
    assert.equal((await service()).weights.green, 30);
    await dialog.getByLabel("Do it all the same").check();
    await dialog.getByRole("button", { name: "Roll back now" }).click();
    await page.locator(".toast").getByText("shop rolled back").waitFor();
    assert.equal((await service()).weights.green, 0);
    await close();
  });

  test("all services go back at once", async () => {
    const { page, close } = await enter(chrome, proxy);
    await page.locator(".red-button").click();
    await page.getByRole("dialog").getByRole("combobox", { name: "Service" }).selectOption("all services");
    await page.getByText("1 of 1 services would go back").waitFor();
    await page.getByRole("button", { name: "Roll back now" }).click();
    await page.locator(".toast").getByText("1 services rolled back, 0 refused").waitFor();
    assert.equal((await service()).weights.green, 0);
    await close();
  });
});
