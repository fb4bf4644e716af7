// Streams of events as the npm package `eventsource` reads them.

import { EventSource } from 'eventsource';

import { assertEqual, proxied, until, world } from './world.js';

/** Everything that an `EventSource` of that path was told, by room, as the judge wants it. */
export function follow(path) {
  const url = new URL(path, proxied.replace(/^ws/, 'http'));
  const follower = { source: new EventSource(url), seen: {}, pings: 0, errors: 0 };
  const keep = (room, event) => (follower.seen[room] ??= [['joined', 0]]).push(event);
  follower.source.addEventListener('ping', () => { follower.pings += 1; });
  follower.source.addEventListener('error', () => { follower.errors += 1; });
  follower.source.addEventListener('reload', ({ data }) => {
    const { room, offset } = JSON.parse(data);
    keep(room, ['reload', offset]);
  });
  follower.source.addEventListener('message', ({ data }) => {
    const delta = JSON.parse(data);
    keep(delta.room, ['delta', delta.offset, delta.data]);
  });
  return follower;
}

const count = (follower, room) => (follower.seen[room]?.length ?? 1) - 1;

export async function an_event_source_resumes_after_the_line_was_cut() {
  const follower = follow('/v1/events?room=lobby&room=other');
  await until('the first ping', () => follower.pings);
  await world('publish lobby 0 10');
  await until('the first deltas', () => count(follower, 'lobby') === 10);
  await world('cut');
  await until('the loss', () => follower.errors);
  await world('publish lobby 10 2000');
  await world('publish other 0 50');
  await world('mend');
  await world('stream lobby 10000 100');
  await world('settle');
  await until('what was missed', () => count(follower, 'lobby') >= 2110 && count(follower, 'other') >= 50);
  for (const room of ['lobby', 'other']) await world(`check ${room} ${JSON.stringify(follower.seen[room])}`);
}

export async function an_event_source_is_told_to_reload_after_history_was_trimmed() {
  const follower = follow('/v1/rooms/short:a/events');
  await until('the first ping', () => follower.pings);
  await world('publish short:a 0 5');
  await until('the first deltas', () => count(follower, 'short:a') === 5);
  await world('cut');
  await until('the loss', () => follower.errors);
  await world('publish short:a 5 50');
  await world('mend');
  await until('the reload', () => count(follower, 'short:a') === 6);
  assertEqual(follower.seen['short:a'].at(-1)[0], 'reload', 'the last event');
  await world('publish short:a 55 5');
  await until('what comes then', () => count(follower, 'short:a') === 11);
  await world(`check short:a ${JSON.stringify(follower.seen['short:a'])}`);
}
