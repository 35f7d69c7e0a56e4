// Who gets in, and where the token is meanwhile.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { browser, enter, logIn, origin, shop, start, visit } from "./support.mjs";

describe("login", () => {
  let chrome, proxy, blue, green;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
    proxy = await start(shop(blue, green));
  });

  after(async () => {
    await chrome.close();
    await proxy.stop();
    [blue, green].forEach((one) => one.stop());
  });

  test("the root leads to the dashboard, which asks for a token", async () => {
    const { page, complaints, close } = await visit(chrome, proxy);
    await page.goto(proxy.address);
    assert.equal(page.url(), proxy.ui);
    await page.getByLabel("Token").waitFor();
    assert.ok(await page.getByLabel("Token").evaluate((field) => field === document.activeElement));
    assert.deepEqual(complaints, []);
    await close();
  });

  test("a wrong token is refused with the reason, and the right one still gets in", async () => {
    const { page, complaints, close } = await visit(chrome, proxy);
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("a valid token is needed").waitFor();
    await logIn(page, proxy.tokens.admin);
    await page.getByRole("link", { name: "shop", exact: true }).first().waitFor();
    assert.deepEqual(complaints, []);
    await close();
  });

  test("the token outlives a reload of the tab, is nowhere else, and is gone after logging out", async () => {
    const { page, close } = await enter(chrome, proxy);
    await page.reload();
    await page.getByRole("link", { name: "shop", exact: true }).first().waitFor();
    const kept = () => page.evaluate(() => JSON.stringify([location.href, document.cookie, { ...localStorage }, document.documentElement.outerHTML]));
    assert.ok(!(await kept()).includes(proxy.tokens.admin));
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByLabel("Token").waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await page.reload();
    await page.getByLabel("Token").waitFor();
    await close();
  });

  test("a token that is not to be kept does not outlive a reload", async () => {
    const { page, close } = await visit(chrome, proxy);
    await page.getByLabel("Keep it until").uncheck();
    await logIn(page, proxy.tokens.admin);
    await page.reload();
    await page.getByLabel("Token").waitFor();
    await close();
  });

  test("roles see what they may do and nothing else", async () => {
    const buttons = { viewer: [], rollback: ["Roll back shop", "Block blue", "Block green", "Carry out a runbook…"] };
    buttons.operator = [...buttons.rollback, "Adjust split…", "Switch…", "Start a rollout…"];
    for (const [role, names] of Object.entries(buttons)) {
      const { page, close } = await enter(chrome, proxy, { role, hash: "#/services/shop" });
      await page.getByRole("heading", { name: "Judge" }).waitFor();
      const found = await page.getByRole("button").evaluateAll((all) => all.map((one) => one.innerText.trim() && one.textContent));
      const acts = found.filter((text) => text && !/^(10|2) min$/.test(text));
      assert.deepEqual(acts.sort(), names.sort(), role);
      await close();
    }
  });
});
