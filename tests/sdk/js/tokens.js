// What an application does with tokens. They are signed here, as a backend would.

import { createHmac } from 'node:crypto';

import { websocket } from './follower.js';
import { assert, assertEqual, direct, until } from './world.js';

const SECRET = 'a secret of these tests, and no other';

function token(claims) {
  const part = (json) => Buffer.from(JSON.stringify(json)).toString('base64url');
  const message = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${message}.${createHmac('sha256', SECRET).update(message).digest('base64url')}`;
}

const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

/** A client whose tokens end after so many seconds, one after the other; the last stays. */
function open(Centrifuge, claims, ...seconds) {
  const fetched = [];
  const getToken = async () => {
    const lasts = seconds.length > 1 ? seconds.shift() : seconds[0];
    fetched.push(lasts);
    return token({ sub: 'ann', exp: inSeconds(lasts), ...claims });
  };
  const client = new Centrifuge(direct, { websocket, minReconnectDelay: 50, getToken });
  client.fetched = fetched;
  client.log = [];
  client.on('disconnected', ({ code }) => client.log.push(code));
  client.connect();
  return client;
}

export async function fetches_another_token_when_the_first_has_expired(Centrifuge) {
  const client = open(Centrifuge, {}, -60, 600);
  await client.ready(10_000);
  assertEqual(client.fetched, [-60, 600], 'tokens');
  client.disconnect();
}

export async function refreshes_its_token_and_stays_connected(Centrifuge) {
  const client = open(Centrifuge, {}, 2, 600);
  let connected = 0;
  client.on('connected', () => { connected += 1; });
  await client.ready(10_000);
  await until('another token', () => client.fetched.length === 2);
  const subscription = client.newSubscription('dialog:#ann');
  subscription.subscribe();
  await subscription.ready(10_000);
  assertEqual([connected, client.log], [1, []], 'connections and ends');
  client.disconnect();
}

export async function follows_a_room_by_a_token_for_it(Centrifuge) {
  const client = open(Centrifuge, {}, 600);
  const ends = [-60, 2, 600];
  const fetched = [];
  const getToken = async ({ channel }) => {
    fetched.push(ends[0]);
    return token({ sub: 'ann', channel, exp: inSeconds(ends.shift()) });
  };
  const subscription = client.newSubscription('secret:1', {
    getToken, minResubscribeDelay: 50, maxResubscribeDelay: 100,
  });
  let unsubscribed = 0;
  subscription.on('unsubscribed', () => { unsubscribed += 1; });
  subscription.subscribe();
  await subscription.ready(10_000);
  await until('a refresh', () => fetched.length === 3);
  const { clients } = await subscription.presence();
  assertEqual(Object.values(clients).map(({ user }) => user), ['ann'], 'who is there');
  assertEqual(unsubscribed, 0, 'ends of the subscription');
  client.disconnect();
}

export async function is_kept_out_for_good_by_a_wrong_token(Centrifuge) {
  const client = new Centrifuge(direct, { websocket, token: `${token({})}x` });
  const disconnected = new Promise((resolve) => client.once('disconnected', resolve));
  client.connect();
  assertEqual((await disconnected).code, 3500, 'code');
  assert(client.state === 'disconnected', client.state);
}
