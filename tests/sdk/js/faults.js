// What goes wrong between an application and the server, and what the SDK makes of it.

import { Follower, connect } from './follower.js';
import { assert, assertEqual, direct, proxied, until, world } from './world.js';

/** More than fits into one page of a replay. */
const BACKLOG = 5000;

export async function recovers_after_the_line_was_cut(Centrifuge) {
  const client = await connect(Centrifuge, proxied);
  const follower = await Follower.join(client, 'lobby');
  const quiet = await Follower.join(client, 'quiet');
  await world('publish lobby 0 10');
  await follower.hasExactly(10);
  await world('cut');
  await until('the loss', () => client.state === 'connecting');
  await world(`publish lobby 10 ${BACKLOG}`);
  await world('stream lobby 100000 300');
  await world('mend');
  await world('settle');
  await follower.hasExactly(10 + BACKLOG + 300);
  await quiet.hasExactly(0);
  assertEqual(follower.reloads + quiet.reloads, 0, 'reloads');
  assert(follower.subscribed.at(-1).recovered, 'the loss was not recovered from');
}

export async function recovers_after_the_server_was_killed(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  const follower = await Follower.join(client, 'lobby');
  await world('publish lobby 0 100');
  await world('kill');
  await until('the loss', () => client.state === 'connecting');
  await world('start');
  await world('publish lobby 100 100');
  await follower.hasExactly(200);
  assertEqual(follower.reloads, 0, 'reloads');
}

export async function reconnects_after_the_server_was_stopped(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  const follower = await Follower.join(client, 'lobby');
  await world('publish lobby 0 10');
  await follower.hasExactly(10);
  await world('stop');
  const lost = await until('the loss', () => client.log.connecting[1]);
  assertEqual([lost.code, lost.reason], [3001, 'shutdown'], 'told');
  await world('start');
  await world('publish lobby 10 10');
  await follower.hasExactly(20);
  assertEqual(follower.reloads, 0, 'reloads');
}

export async function is_told_to_reload_after_history_was_trimmed(Centrifuge) {
  const client = await connect(Centrifuge, proxied);
  const follower = await Follower.join(client, 'short:a');
  await world('publish short:a 0 5');
  await follower.hasExactly(5);
  await world('cut');
  await until('the loss', () => client.state === 'connecting');
  await world('publish short:a 5 50');
  await world('mend');
  await until('the return', () => follower.subscribed.length === 2);
  const { wasRecovering, recovered } = follower.subscribed[1];
  assertEqual([wasRecovering, recovered], [true, false], 'was recovering, recovered');
  await world('publish short:a 55 5');
  await follower.hasExactly(10);
}

export async function is_told_to_reload_after_the_log_was_lost(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  const follower = await Follower.join(client, 'lobby');
  await world('publish lobby 0 5');
  await follower.hasExactly(5);
  const { epoch } = follower.subscribed[0].streamPosition;
  await world('kill');
  await world('wipe');
  await world('start');
  await until('the return', () => follower.subscribed.length === 2);
  const { wasRecovering, recovered, streamPosition } = follower.subscribed[1];
  assertEqual([wasRecovering, recovered], [true, false], 'was recovering, recovered');
  assert(streamPosition.epoch !== epoch, 'the epoch is the old one');
  // Positions of two epochs can't be compared: the judge gets what the new one brings.
  follower.seen = follower.seen.filter(([kind]) => kind === 'reload');
  await world('publish lobby 0 5');
  await follower.hasExactly(10);
}

export async function asks_for_state_when_its_position_is_lost(Centrifuge) {
  const client = await connect(Centrifuge, proxied);
  let asked = 0;
  const getState = async () => {
    asked += 1;
    const { offset, epoch } = await client.history('short:a', { limit: 0 });
    return { offset, epoch };
  };
  await world('publish short:a 0 5');
  const follower = await Follower.join(client, 'short:a', { getState, minResubscribeDelay: 50 });
  assertEqual(asked, 1, 'times asked');
  await world('cut');
  await until('the loss', () => client.state === 'connecting');
  await world('publish short:a 5 50');
  await world('mend');
  await until('the return', () => follower.subscribed.length === 2);
  assertEqual(asked, 2, 'times asked after the position was lost');
  await world('publish short:a 55 5');
  await until('the rest', () => follower.publications.length === 5);
  assertEqual(follower.publications.map(({ data }) => data.n), [55, 56, 57, 58, 59], 'the rest');
}
