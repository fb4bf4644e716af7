// The live page in a real browser. Runs the scenario that is named by the first argument against the server whose URL
// is the second; screenshots go to the folder that is the third. What it says on stderr is the reason of a failure.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [scenario, server, shots] = process.argv.slice(2);
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const DESK = { viewport: { width: 1280, height: 800 }, colorScheme: "light" };
const PHONE = { viewport: { width: 390, height: 844 }, colorScheme: "dark", hasTouch: true };

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

async function open(room, options = DESK, transport = "websocket") {
  const page = await browser.newPage({ ...options, bypassCSP: false });
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.complaints = complaints;
  await page.goto(`${server}/?room=${room}&transport=${transport}`);
  await live(page);
  return page;
}

const live = (page) => page.waitForSelector('#status[data-state="live"]');
const rows = (page, kind = "li") => page.locator(`#deltas ${kind}`).count();
const rowsAre = (page, count, kind = "li") =>
  page.waitForFunction(
    ([selector, count]) => document.querySelectorAll(selector).length === count,
    [`#deltas ${kind}`, count],
  );

async function publish(room, data) {
  const response = await fetch(`${server}/v1/rooms/${room}/deltas`, { method: "POST", body: JSON.stringify(data) });
  assert.equal(response.status, 201);
}

async function shows_what_is_published_and_what_an_outage_missed(transport) {
  const room = `outage-${transport}`;
  const page = await open(room, DESK, transport);
  await publish(room, { from: "elsewhere" });
  await rowsAre(page, 1);
  await page.click("#send");
  await rowsAre(page, 2);
  await page.click("#cut");
  await page.waitForSelector('#status[data-state="offline"]');
  for (let n = 0; n < 5; n += 1) await publish(room, { missed: n });
  await page.click("#cut");
  await rowsAre(page, 5, "li.replayed");
  await page.waitForFunction(() => /5 deltas replayed, nothing lost/.test(document.querySelector("#recovery").textContent));
  await publish(room, { after: true });
  await rowsAre(page, 8);
  assert.equal(await rows(page, "li.replayed"), 5, "what came later is not replayed");
  const offsets = await page.locator("#deltas li > :first-child").allTextContents();
  assert.deepEqual(offsets.map(Number), [...offsets].map(Number).sort((a, b) => b - a), "newest first, none twice");
  assert.deepEqual(page.complaints, []);
}

const SCENARIOS = {
  over_a_websocket: () => shows_what_is_published_and_what_an_outage_missed("websocket"),
  over_an_http_stream: () => shows_what_is_published_and_what_an_outage_missed("http_stream"),
  over_the_sdks_events: () => shows_what_is_published_and_what_an_outage_missed("sse"),
  over_an_event_source: () => shows_what_is_published_and_what_an_outage_missed("eventsource"),
  over_polls: () => shows_what_is_published_and_what_an_outage_missed("poll"),

  async tells_what_is_wrong_with_a_delta() {
    const page = await open("mistakes");
    await page.fill("#delta", "{no json");
    await page.click("#send");
    await page.waitForSelector("#published.bad");
    assert.match(await page.textContent("#published"), /^400: /);
    assert.equal(await rows(page), 0);
  },

  async can_be_used_by_keyboard_alone() {
    const page = await open("keys");
    const tabTo = async (id) => {
      for (let n = 0; n < 20; n += 1) {
        if ((await page.evaluate(() => document.activeElement.id)) === id) return;
        await page.keyboard.press("Tab");
      }
      assert.fail(`${id} is out of the keyboard's reach`);
    };
    await tabTo("room");
    await page.keyboard.press("Control+A");
    await page.keyboard.type("other");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#title").textContent === "other");
    await live(page);
    await tabTo("ten");
    await page.keyboard.press("Enter");
    await rowsAre(page, 10);
    await tabTo("rehearse");
    await page.keyboard.press("Enter");
    await rowsAre(page, 10, "li.replayed");
  },

  async reads_well_on_a_desk_and_on_a_phone() {
    for (const [name, options] of [["desk", DESK], ["phone", PHONE]]) {
      for (const colorScheme of ["light", "dark"]) {
        const page = await open(`looks-${name}-${colorScheme}`, { ...options, colorScheme });
        await page.click("#send");
        await rowsAre(page, 1);
        await page.click("#rehearse");
        await rowsAre(page, 10, "li.replayed");
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overflow <= 0, `${name}: ${overflow} px too wide`);
        await page.screenshot({ path: `${shots}/${name}-${colorScheme}.png`, fullPage: true });
        // The policy of the page keeps scripts of others out; the checker comes in by the browser's own door.
        await page.evaluate(await readFile(AXE, "utf8"));
        const { violations } = await page.evaluate(() => axe.run());
        const grave = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
        assert.deepEqual(grave.map(({ id, nodes }) => [id, nodes[0].html]), []);
        await page.close();
      }
    }
  },
};

try {
  await SCENARIOS[scenario]();
} finally {
  await browser.close();
}
