// A runbook: what its steps found is seen, and the one that waits is ticked.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { browser, enter, origin, shop, start } from "./support.mjs";

const RUNBOOK = `
runbooks:
  by_hand:
    steps:
      - {name: Assess impact, duration: 2 min}
      - {name: Call the shift lead, action: "555-1234", duration: 5 min}
`;

describe("runbook", () => {
  let chrome, proxy, blue, green;

  before(async () => {
    [chrome, blue, green] = await Promise.all([browser(), origin(), origin()]);
    proxy = await start(shop(blue, green, "") + RUNBOOK);
  });

  after(async () => {
    await chrome.close();
    await proxy.stop();
    [blue, green].forEach((one) => one.stop());
  });

  test("a step that waits is ticked, with the reason on record", async () => {
    const { page, complaints, close } = await enter(chrome, proxy, { hash: "#/services/shop" });
    const card = page.locator(".runbook-card");
    await card.getByRole("button", { name: "Carry out a runbook…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Begin" }).click();
    await card.getByText("Waits: 555-1234").waitFor();
    await card.getByText("requests failed in the last").waitFor();
    await card.getByRole("button", { name: "Tick…" }).click();
    const dialog = page.getByRole("dialog", { name: "Step 2: Call the shift lead" });
    await dialog.getByLabel("Reason, for the record").fill("they know");
    await dialog.getByRole("button", { name: "Tick", exact: true }).click();
    await card.getByText("ticked by admin-anna: they know").waitFor();
    await card.getByText("all 2 steps are done").waitFor();
    const run = await proxy.api("GET", "/v1/services/shop/runbook");
    assert.equal(run.status, "completed");
    assert.deepEqual(complaints, []);
    await close();
  });
});
