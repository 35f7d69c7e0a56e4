// Everything by keyboard alone.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { browser, eventually, load, origin, shop, start, visit } from "./support.mjs";

/** Presses Tab until what has the focus is called so. */
async function tabTo(page, name) {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press("Tab");
    const said = await page.evaluate(() => {
      const focused = document.activeElement;
      return [focused.getAttribute("aria-label"), focused.textContent, focused.labels?.[0]?.textContent].filter(Boolean).map((text) => text.trim());
    });
    if (said.includes(name)) {
      const visible = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== "none");
      assert.ok(visible, `one sees that ${name} has the focus`);
      return;
    }
  }
  throw new Error(`Tab never reaches ${name}`);
}

describe("keyboard", () => {
  let chrome, proxy, blue, green, stopLoad;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
    proxy = await start(shop(blue, green));
    stopLoad = load(proxy.port, 2);
  });

  after(async () => {
    await stopLoad();
    await chrome.close();
    await proxy.stop();
    [blue, green].forEach((one) => one.stop());
  });

  const service = () => proxy.api("GET", "/v1/services/shop");

  test("log in, find the service, set its split, look at a chart, and roll back", async () => {
    const { page, complaints, close } = await visit(chrome, proxy);
    const press = (key) => page.keyboard.press(key);
    await page.getByLabel("Token").waitFor();
    await page.locator("input:focus").waitFor();
    await page.keyboard.type(proxy.tokens.admin);
    await press("Enter");
    await page.getByRole("link", { name: "shop", exact: true }).first().waitFor();
    await tabTo(page, "shop");
    await press("Enter");
    await page.getByRole("button", { name: "Adjust split…" }).waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1", "whoever reads by ear is told where they are");

    await tabTo(page, "Adjust split…");
    await press("Enter");
    await page.waitForFunction(() => document.activeElement.getAttribute("aria-label") === "Share of green");
    for (let steps = 0; steps < 10; steps += 1) {
      await press("ArrowRight");
    }
    await page.getByRole("row", { name: "weights.green from 0 to 10" }).waitFor();
    await tabTo(page, "Set the split");
    await press("Enter");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    assert.deepEqual((await service()).weights, { blue: 90, green: 10 });
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Adjust split…", "the focus is back where it was");

    await tabTo(page, "Requests a second: second");
    const value = () => page.evaluate(() => document.activeElement.getAttribute("aria-valuetext"));
    await page.waitForFunction(() => Number(document.activeElement.ariaValueMax) > Number(document.activeElement.ariaValueMin) + 4);
    const last = await value();
    await press("ArrowLeft");
    await press("ArrowLeft");
    await eventually("another second is told", async () => (await value()).slice(0, 8) < last.slice(0, 8));

    await press("Alt+r");
    await page.waitForFunction(() => document.activeElement.textContent === "Roll back now");
    await press("Enter");
    await page.locator(".toast").getByText("shop rolled back").waitFor();
    assert.deepEqual((await service()).weights, { blue: 100, green: 0 });
    assert.deepEqual(complaints, []);
    await close();
  });

  test("search by shortcut leads to a service, and Escape leaves a dialog", async () => {
    const { page, close } = await visit(chrome, proxy);
    await page.locator("input:focus").waitFor();
    await page.keyboard.type(proxy.tokens.admin);
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "shop", exact: true }).first().waitFor();
    await page.keyboard.press("Control+k");
    await page.keyboard.type("sho");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Judge" }).waitFor();
    await page.keyboard.press("Alt+r");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await close();
  });

  test("the first thing that Tab reaches leads past the bar", async () => {
    const { page, close } = await visit(chrome, proxy);
    await page.locator("input:focus").waitFor();
    await page.keyboard.type(proxy.tokens.admin);
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "shop", exact: true }).first().waitFor();
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "content");
    await close();
  });
});
