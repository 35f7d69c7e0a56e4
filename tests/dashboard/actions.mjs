// What one can do about a service: what it would change is shown, and what is refused says why.

import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { browser, enter, eventually, origin, shop, start } from "./support.mjs";

const ROLLOUT = `health: {path: /healthz, interval: 200ms, timeout: 200ms, rise: 1, fall: 1}
rollout: {steps: [{weight: 10%, for: 1h}, {weight: 50%, for: 1h}], bake: off}`;

describe("actions", () => {
  let chrome, proxy, blue, green;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
    proxy = await start(shop(blue, green, ROLLOUT));
  });

  after(async () => {
    await chrome.close();
    await proxy.stop();
    [blue, green].forEach((one) => one.stop());
  });

  const service = () => proxy.api("GET", "/v1/services/shop");
  const told = (page, text) => page.locator(".toast").getByText(text).waitFor();

  beforeEach(async () => {
    await eventually("both are healthy", async () => {
      const { backends } = await service();
      return backends.blue.health === "healthy" && backends.green.health === "healthy";
    });
    const { backends, stable } = await service();
    for (const name of ["blue", "green"]) {
      if (backends[name].blocked) {
        await proxy.api("POST", `/v1/services/shop/backends/${name}/unblock`);
      }
    }
    if (stable !== "blue") {
      await proxy.api("POST", "/v1/services/shop/switch", { to: "blue" });
    }
    await proxy.api("PUT", "/v1/services/shop/weights", { weights: { blue: 100, green: 0 } });
  });

  test("sliders set the split, with the difference beforehand and the reason on record", async () => {
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.getByRole("button", { name: "Adjust split…" }).click();
    const dialog = page.getByRole("dialog", { name: "Adjust the split of shop" });
    await dialog.getByText("Nothing would change").waitFor();
    assert.ok(await dialog.getByRole("button", { name: "Set the split" }).isDisabled());
    await dialog.getByLabel("Share of green").fill("15");
    await eventually("what green gets is taken from stable", async () => (await dialog.getByLabel("Weight of blue").inputValue()) === "85");
    await dialog.getByRole("row", { name: "weights.green from 0 to 15" }).waitFor();
    await dialog.getByLabel("Reason, for the record").fill("a first look");
    await dialog.getByRole("button", { name: "Set the split" }).click();
    await told(page, "shop: blue 85 %, green 15 %: in force on every worker after");
    assert.deepEqual((await service()).weights, { blue: 85, green: 15 });
    await page.locator(".history-card").getByText("“a first look”").waitFor();
    assert.deepEqual(complaints, []);
    await close();
  });

  test("a dialog needs nothing that browsers keep for pages with TLS", async () => {
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.evaluate(() => delete Crypto.prototype.randomUUID);
    assert.equal(await page.evaluate(() => typeof crypto.randomUUID), "undefined");
    await page.getByRole("button", { name: "Adjust split…" }).click();
    const dialog = page.getByRole("dialog", { name: "Adjust the split of shop" });
    await dialog.getByText("Nothing would change").waitFor();
    assert.deepEqual(complaints, []);
    await close();
  });

  test("a split of less than a percent can be set, and for a while only", async () => {
    const { page, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.getByRole("button", { name: "Adjust split…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("combobox", { name: "Steps of" }).selectOption("0.1 %");
    await dialog.getByLabel("Weight of green").fill("5");
    await dialog.getByRole("combobox", { name: "For" }).selectOption("1 hour");
    await dialog.getByRole("row", { name: "weights.green from 0 to 5" }).waitFor();
    await dialog.getByRole("button", { name: "Set the split" }).click();
    await told(page, "shop: blue 99.5 %, green 0.5 %");
    assert.ok((await service()).override.lease);
    await page.getByText(/the split ends \d/).waitFor();
    await close();
  });

  test("what was changed meanwhile is shown anew before it is overwritten", async () => {
    const { page, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.getByRole("button", { name: "Adjust split…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Share of green").fill("20");
    await dialog.getByRole("row", { name: "weights.green from 0 to 20" }).waitFor();
    await proxy.api("PUT", "/v1/services/shop/weights", { weights: { blue: 95, green: 5 } });
    await dialog.getByRole("button", { name: "Set the split" }).click();
    await dialog.getByText("Something was changed meanwhile").waitFor();
    await dialog.getByRole("row", { name: "weights.green from 5 to 20" }).waitFor();
    assert.equal((await service()).weights.green, 5);
    await dialog.getByRole("button", { name: "Set the split" }).click();
    await told(page, "shop: blue 80 %, green 20 %");
    await close();
  });

  test("switch makes the other backend stable", async () => {
    const { page, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.getByRole("button", { name: "Switch…" }).click();
    const dialog = page.getByRole("dialog", { name: "Switch shop" });
    await dialog.getByRole("row", { name: "stable from blue to green" }).waitFor();
    await dialog.getByRole("button", { name: "Switch now" }).click();
    await told(page, "shop switched");
    await page.getByRole("row", { name: /^green/ }).getByText("stable").waitFor();
    await page.getByText("green is on trial").first().waitFor();
    assert.equal((await service()).stable, "green");
    await close();
  });

  test("block and unblock, and a switch to what is blocked is refused with its reason", async () => {
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    await page.getByRole("button", { name: "Block green" }).click();
    let dialog = page.getByRole("dialog", { name: "Block green of shop" });
    await dialog.getByRole("row", { name: /^blocked/ }).waitFor();
    await dialog.getByLabel("Reason, for the record").fill("it leaks memory");
    await dialog.getByRole("button", { name: "Block now" }).click();
    await told(page, "green of shop blocked");
    await page.locator(".blocked-card").getByText("it leaks memory").waitFor();

    await page.getByRole("button", { name: "Switch…" }).click();
    dialog = page.getByRole("dialog", { name: "Switch shop" });
    const refusal = dialog.getByRole("alert");
    await refusal.getByText("Refused").waitFor();
    await refusal.getByText(/version "42" of backend "green" is blocked since .*: it leaks memory; unblock it or deploy a new version/).waitFor();
    assert.ok(await dialog.getByRole("button", { name: "Switch now" }).isDisabled());
    await dialog.getByRole("button", { name: "Cancel" }).click();

    await page.getByRole("button", { name: "Unblock green" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Unblock" }).click();
    await told(page, "green of shop unblocked");
    await page.getByText("No version is blocked.").waitFor();
    assert.deepEqual(complaints, []);
    await close();
  });

  test("a rollout is started, paused, resumed and promoted, step by step", async () => {
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    const card = page.locator(".rollout-card");
    const confirm = async (verb) => page.getByRole("dialog").getByRole("button", { name: verb, exact: true }).click();
    await card.getByRole("button", { name: "Start a rollout…" }).click();
    await page.getByRole("dialog").getByRole("row", { name: "weights.green" }).waitFor();
    await confirm("Start");
    await told(page, "rollout of shop started");
    await card.locator("[aria-current=step]").getByText("10 %").waitFor();
    await card.getByText("if the judge has nothing against it").waitFor();

    await card.getByRole("button", { name: "Pause…" }).click();
    await page.getByRole("dialog").getByLabel("Reason, for the record").fill("lunch");
    await confirm("Pause");
    await card.getByText(/Paused by admin-anna .*: lunch/).waitFor();

    await card.getByRole("button", { name: "Resume…" }).click();
    await confirm("Resume");
    await told(page, "rollout of shop resumed");

    await card.getByRole("button", { name: "Promote…" }).click();
    await page.getByRole("dialog").getByRole("row", { name: "rollout.weight from 10% to 50%" }).waitFor();
    await confirm("Promote");
    await card.locator("[aria-current=step]").getByText("50 %").waitFor();

    await card.getByRole("button", { name: "Promote…" }).click();
    await page.getByLabel("To the end").check();
    await page.getByRole("dialog").getByRole("row", { name: "stable from blue to green" }).waitFor();
    await confirm("Promote");
    await card.getByText("promoted", { exact: true }).waitFor();
    assert.equal((await service()).stable, "green");
    assert.deepEqual(complaints, []);
    await close();
  });

  test("a file that is refused is told on the first page", async () => {
    const { page, close } = await enter(chrome, proxy);
    await page.getByRole("heading", { name: "All is well" }).or(page.getByRole("heading", { name: /needs? a look/ })).waitFor();
    proxy.write("version: 1\nservces: {}\n");
    await page.getByText(/The file was refused/).waitFor();
    await page.locator(".notice pre").getByText(/servces/).waitFor();
    await close();
  });
});
