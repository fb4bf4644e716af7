// What an application does while nothing goes wrong. Each scenario gets the SDK's client class.

import { Follower, connect, open } from './follower.js';
import { assert, assertEqual, direct, failure, until, world } from './world.js';

export async function connects_and_disconnects(Centrifuge) {
  const client = open(Centrifuge, direct);
  const connected = new Promise((resolve) => client.once('connected', resolve));
  client.connect();
  assert((await connected).client, 'the connection has no name');
  client.disconnect();
  await until('the end', () => client.log.disconnected.length);
  assertEqual(client.log.errors, [], 'errors');
}

export async function subscribes_to_a_hundred_rooms_at_once(Centrifuge) {
  const client = open(Centrifuge, direct);
  const followers = Array.from({ length: 100 }, (_, n) => new Follower(client, `many-${n}`));
  for (const follower of followers) follower.subscription.subscribe();
  client.connect();
  await Promise.all(followers.map((follower) => follower.subscription.ready(10_000)));
  for (const { room } of followers) await world(`publish ${room} 0 3`);
  for (const follower of followers) await follower.hasExactly(3);
}

export async function receives_in_order(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  const follower = await Follower.join(client, 'lobby');
  await world('stream lobby 0 200');
  await world('publish lobby 1000 1000');
  await world('settle');
  await follower.hasExactly(1200);
}

export async function reads_history_from_both_ends(Centrifuge) {
  await world('publish lobby 1 10');
  const client = await connect(Centrifuge, direct);
  const { subscription } = await Follower.join(client, 'lobby');
  const numbers = ({ publications }) => publications.map(({ data }) => data.n);

  const position = await subscription.history();
  assertEqual(numbers(position), [], 'without a limit');
  assert(position.offset >= 10 && position.epoch, 'no position');
  const all = await subscription.history({ limit: -1 });
  assertEqual(numbers(all), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 'all');
  assertEqual(numbers(await subscription.history({ limit: 2 })), [1, 2], 'the oldest');
  const newest = await subscription.history({ limit: 2, reverse: true });
  assertEqual(numbers(newest), [10, 9], 'the newest');
  const since = { offset: all.publications[7].offset, epoch: all.epoch };
  assertEqual(numbers(await subscription.history({ limit: 5, since })), [9, 10], 'since the 8th');
  const other = { offset: since.offset, epoch: 'another' };
  const refused = await failure(subscription.history({ limit: 5, since: other }));
  assertEqual(refused.code, 112, 'another epoch');
}

export async function sees_who_is_present(Centrifuge) {
  const [one, two] = [await connect(Centrifuge, direct), await connect(Centrifuge, direct)];
  const { subscription } = await Follower.join(one, 'people:a');
  assertEqual(Object.keys((await subscription.presence()).clients).length, 1, 'alone');
  await Follower.join(two, 'people:a');
  const { clients } = await subscription.presence();
  assertEqual(Object.keys(clients).length, 2, 'with another');
  for (const [id, info] of Object.entries(clients)) assertEqual(info.client, id, 'a client');
  const stats = await subscription.presenceStats();
  assertEqual([stats.numClients, stats.numUsers], [2, 1], 'figures');
  two.disconnect();
  for (let count = 2; count !== 1; ) {
    count = (await subscription.presenceStats()).numClients;
  }
}

export async function sees_others_join_and_leave(Centrifuge) {
  const [one, two] = [await connect(Centrifuge, direct), await connect(Centrifuge, direct)];
  const { subscription } = await Follower.join(one, 'people:a', { joinLeave: true });
  const [joined, left] = [[], []];
  subscription.on('join', ({ info }) => joined.push(info.client));
  subscription.on('leave', ({ info }) => left.push(info.client));
  const other = (await Follower.join(two, 'people:a')).subscription;
  await until('the join', () => joined.includes(two.log.id));
  assert(!left.includes(two.log.id), 'left before it left');
  other.unsubscribe();
  await until('the leave', () => left.includes(two.log.id));
}

export async function may_not_publish_by_default(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  const follower = await Follower.join(client, 'lobby');
  assertEqual((await failure(follower.subscription.publish({ n: 0 }))).code, 108, 'refused with');
  await world('publish lobby 1 1');
  await follower.hasExactly(1);
}

export async function publishes_what_is_never_stored(Centrifuge) {
  const [one, two] = [await connect(Centrifuge, direct), await connect(Centrifuge, direct)];
  const sender = await Follower.join(one, 'typing:a');
  const receiver = await Follower.join(two, 'typing:a');
  await sender.subscription.publish({ typing: true });
  const notice = await until('the notice', () => receiver.publications[0]);
  assertEqual(notice.data, { typing: true }, 'data');
  assert(!notice.offset, `an offset: ${notice.offset}`);
  assert(notice.info.client, 'nobody is named as the sender');
  const { publications } = await receiver.subscription.history({ limit: -1 });
  assertEqual(publications, [], 'history');
  await world('publish typing:a 1 1');
  await receiver.hasExactly(2);
}

export async function publishes_what_is_stored(Centrifuge) {
  const [one, two] = [await connect(Centrifuge, direct), await connect(Centrifuge, direct)];
  const sender = await Follower.join(one, 'open:a');
  const receiver = await Follower.join(two, 'open:a');
  await sender.subscription.publish({ text: 'hello' });
  const delta = await until('the delta', () => receiver.publications[0]);
  assert(delta.offset > 0, 'it has no offset');
  assert(delta.info.client, 'nobody is named as the sender');
  const { publications } = await receiver.subscription.history({ limit: -1 });
  assertEqual(publications.map(({ data }) => data), [{ text: 'hello' }], 'history');
}

export async function is_told_that_there_is_no_rpc(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  assertEqual((await failure(client.rpc('anything', {}))).code, 108, 'refused with');
  await (await Follower.join(client, 'lobby')).hasExactly(0);
}

export async function is_told_that_nobody_takes_messages(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  await client.send({ hello: 'world' });
  const context = await until('the end', () => client.log.disconnected[0]);
  assertEqual(context.code, 3508, 'closed with');
}

export async function unsubscribes_and_subscribes_back_to_back(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  const follower = await Follower.join(client, 'lobby');
  for (let round = 0; round < 20; round += 1) {
    follower.subscription.unsubscribe();
    follower.subscription.subscribe();
    await world(`publish lobby ${round * 10} 10`);
    await follower.hasExactly((round + 1) * 10);
  }
  assertEqual(follower.unsubscribed.filter(({ code }) => code !== 0), [], 'ended by the server');
  assertEqual(follower.reloads, 0, 'reloads');
}

/** Before 5.8 the SDK takes what was on its way when it unsubscribed for the new subscription's. */
export async function unsubscribes_and_subscribes_under_load(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  const follower = await Follower.join(client, 'lobby');
  await world('stream lobby 0 300');
  for (let round = 0; round < 20; round += 1) {
    follower.subscription.unsubscribe();
    follower.subscription.subscribe();
    await follower.subscription.ready(10_000);
  }
  await world('settle');
  await follower.hasExactly(300);
  assertEqual(follower.reloads, 0, 'reloads');
}

export async function unsubscribed_it_gets_nothing_and_recovers_on_return(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  const follower = await Follower.join(client, 'lobby');
  const witness = await Follower.join(client, 'witness');
  follower.subscription.unsubscribe();
  await world('publish lobby 0 5');
  await world('publish witness 0 1');
  await witness.hasExactly(1);
  assertEqual(follower.publications, [], 'while unsubscribed');
  follower.subscription.subscribe();
  await follower.hasExactly(5);
}

export async function answers_pings(Centrifuge) {
  const client = await connect(Centrifuge, direct);
  await new Promise((resolve) => setTimeout(resolve, 4000));
  assertEqual(client.state, 'connected', 'state');
  assertEqual(client.log.connecting.length, 1, 'times of connecting');
}
