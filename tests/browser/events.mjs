// Streams of events in a real browser: runs the scenario that is named by the argument, as `tests/sdk/world.rs` has it.
// What it says on stderr is the reason of a failure.

import { chromium } from "playwright-core";

import { assertEqual, proxied, until, world } from "../sdk/js/world.js";

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

/** A page of the server's own origin that follows rooms, and what its `EventSource` was told. */
async function follow(path) {
  const page = await browser.newPage();
  const follower = { seen: {}, pings: 0, errors: 0 };
  const keep = (room, event) => (follower.seen[room] ??= [["joined", 0]]).push(event);
  await page.exposeFunction("told", (kind, text) => {
    if (kind === "ping") follower.pings += 1;
    else if (kind === "error") follower.errors += 1;
    else {
      const told = JSON.parse(text);
      if (kind === "reload") keep(told.room, ["reload", told.offset]);
      else keep(told.room, ["delta", told.offset, told.data]);
    }
  });
  await page.goto(new URL("/healthz", proxied.replace(/^ws/, "http")).href);
  await page.evaluate((path) => {
    window.source = new EventSource(path);
    for (const kind of ["message", "reload", "ping", "error"])
      window.source.addEventListener(kind, ({ data }) => window.told(kind, data));
  }, path);
  return follower;
}

const count = (follower, room) => (follower.seen[room]?.length ?? 1) - 1;

const scenarios = {
  async an_event_source_resumes_after_the_line_was_cut() {
    const follower = await follow("/v1/events?room=lobby&room=other");
    await until("the first ping", () => follower.pings);
    await world("publish lobby 0 10");
    await until("the first deltas", () => count(follower, "lobby") === 10);
    await world("cut");
    await until("the loss", () => follower.errors);
    await world("publish lobby 10 2000");
    await world("publish other 0 50");
    await world("mend");
    await world("stream lobby 10000 100");
    await world("settle");
    await until("what was missed", () => count(follower, "lobby") >= 2110 && count(follower, "other") >= 50);
    for (const room of ["lobby", "other"]) await world(`check ${room} ${JSON.stringify(follower.seen[room])}`);
  },

  async an_event_source_is_told_to_reload_after_history_was_trimmed() {
    const follower = await follow("/v1/rooms/short:a/events");
    await until("the first ping", () => follower.pings);
    await world("publish short:a 0 5");
    await until("the first deltas", () => count(follower, "short:a") === 5);
    await world("cut");
    await until("the loss", () => follower.errors);
    await world("publish short:a 5 50");
    await world("mend");
    await until("the reload", () => count(follower, "short:a") === 6);
    assertEqual(follower.seen["short:a"].at(-1)[0], "reload", "the last event");
    await world("publish short:a 55 5");
    await until("what comes then", () => count(follower, "short:a") === 11);
    await world(`check short:a ${JSON.stringify(follower.seen["short:a"])}`);
  },
};

let status = 0;
try {
  await scenarios[process.argv[2]]();
} catch (error) {
  console.error(error);
  status = 1;
}
await browser.close();
process.exit(status);
