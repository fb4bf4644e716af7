// The way from a scenario to the test that runs it, and the waiting that all scenarios share.

import { createInterface } from 'node:readline';

export const direct = process.env.ROOMWIRE_DIRECT;
export const proxied = process.env.ROOMWIRE_PROXIED;

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the test do something to the server or the line; see `tests/sdk/world.rs`. */
export async function world(request) {
  process.stdout.write(`world ${request}\n`);
  const { value } = await answers.next();
  if (value !== 'ok') throw new Error(`world ${request.slice(0, 80)}: ${value}`);
}

/** Waits until `condition` gives something truthy, which it then gives. */
export async function until(what, condition) {
  const start = Date.now();
  for (;;) {
    const found = condition();
    if (found) return found;
    if (Date.now() - start > 30_000) throw new Error(`waited 30 s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export function assert(condition, message) {
  if (!condition) throw new Error(message);
}

export function assertEqual(actual, expected, what) {
  const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== e) throw new Error(`${what}: expected ${e}, got ${a}`);
}

/** The error that a promise must end with. */
export async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('succeeded, and should have failed');
}
