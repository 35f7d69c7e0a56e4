// From the narrowest phone to a wide screen, and from one service to a thousand.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { browser, enter, eventually, load, many, origin, shop, start, visit } from "./support.mjs";

/** By how much the page is too wide. */
const excess = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

describe("size", () => {
  let chrome, blue, green;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
  });

  after(async () => {
    await chrome.close();
    [blue, green].forEach((one) => one.stop());
  });

  for (const width of [360, 768, 1600]) {
    test(`nothing scrolls sideways at ${width} pixels`, async () => {
      const proxy = await start(shop(blue, green));
      const stopLoad = load(proxy.port, 3);
      await proxy.api("PUT", "/v1/services/shop/weights", { weights: { blue: 60, green: 40 }, reason: "a-reason-that-is-one-word-and-longer-than-any-phone-is-wide-which-people-do-paste" });
      await proxy.api("POST", "/v1/services/shop/rollback");
      const viewport = { width, height: 800 };
      const door = await visit(chrome, proxy, { viewport });
      await door.page.getByLabel("Token").waitFor();
      assert.equal(await excess(door.page), 0, "login");
      await door.close();
      const { page, close } = await enter(chrome, proxy, { viewport });
      for (const [hash, ready] of [
        ["#/", page.getByRole("link", { name: "shop", exact: true }).first()],
        ["#/services/shop", page.locator("#chart-times")],
        ["#/activity", page.getByText("“a-reason").first()],
        ["#/incidents", page.locator("main h1")],
      ]) {
        await page.goto(`${proxy.ui}${hash}`);
        await ready.waitFor();
        assert.equal(await excess(page), 0, hash);
        // What matters most is within reach.
        const button = await page.locator(".red-button").boundingBox();
        assert.ok(button && button.x >= 0 && button.x + button.width <= width && button.y < 80, hash);
      }
      await page.goto(`${proxy.ui}#/services/shop`);
      await page.getByRole("button", { name: "Adjust split…" }).click();
      const dialog = await page.getByRole("dialog").boundingBox();
      assert.ok(dialog.x >= 0 && dialog.x + dialog.width <= width);
      await close();
      await stopLoad();
      await proxy.stop();
    });
  }

  test("a thousand services are paged, searched and looked at without a stutter", async () => {
    const proxy = await start(many(1000, blue, green));
    const { page, complaints, close } = await enter(chrome, proxy);
    await page.getByText("1,000 services").waitFor();
    assert.equal(await page.locator(".services tbody tr").count(), 50);
    assert.ok((await page.locator("*").count()) < 4000);

    // While it is looked at every second, nothing keeps the page busy for long.
    const longest = await page.evaluate(
      () =>
        new Promise((done) => {
          let longest = 0;
          new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => (longest = Math.max(longest, duration)))).observe({ type: "longtask" });
          setTimeout(() => done(longest), 4000);
        }),
    );
    assert.ok(longest < 250, `busy for ${longest} ms`);

    const search = page.getByLabel("Search services");
    const began = Date.now();
    await search.fill("0777");
    await page.getByRole("link", { name: "service-0777", exact: true }).waitFor();
    assert.equal(await page.locator(".services tbody tr").count(), 1, "also found by version");
    assert.ok(Date.now() - began < 1000, `${Date.now() - began} ms`);
    await search.fill("");
    await page.getByRole("button", { name: "Next" }).click();
    await page.getByText("51–100 of 1,000").waitFor();
    await page.getByRole("link", { name: "service-0050", exact: true }).click();
    await page.getByRole("heading", { name: "service-0050" }).waitFor();
    await page.getByRole("row", { name: /^green/ }).getByText("5 %", { exact: true }).waitFor();

    // A change among a thousand is seen as well.
    await page.goto(`${proxy.ui}#/`);
    await proxy.api("POST", "/v1/services/service-0999/backends/green/block", { reason: "no" });
    await page.getByRole("heading", { name: "One service needs a look" }).waitFor();
    await page.getByRole("button", { name: "Previous" }).click();
    await eventually("the worst comes first", async () => (await page.locator(".row-link").first().textContent()) === "service-0999");
    assert.deepEqual(complaints, []);
    await close();
    await proxy.stop();
  });
});
