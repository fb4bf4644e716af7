"""What an application does while nothing goes wrong."""

import asyncio

from centrifuge import ClientState, StreamPosition

from follower import Follower, connect, open_client
from world import DIRECT, assert_equal, failure, until, world


async def connects_and_disconnects():
    client = open_client(DIRECT)
    await client.connect()
    await client.ready(10)
    await until("the connection's name", lambda: client.events.id)
    await client.disconnect()
    await until("the end", lambda: client.events.disconnected)
    assert_equal(client.events.errors, [], "errors")


async def subscribes_to_a_hundred_rooms_at_once():
    client = await connect(DIRECT)
    followers = [Follower(client, f"many-{n}") for n in range(100)]
    await asyncio.gather(*(follower.subscription.subscribe() for follower in followers))
    await asyncio.gather(*(follower.subscription.ready(10) for follower in followers))
    for follower in followers:
        await world(f"publish {follower.room} 0 3")
    for follower in followers:
        await follower.has_exactly(3)


async def receives_in_order():
    follower = await Follower.join(await connect(DIRECT), "lobby")
    await world("stream lobby 0 200")
    await world("publish lobby 1000 1000")
    await world("settle")
    await follower.has_exactly(1200)


async def reads_history_from_both_ends():
    def numbers(result):
        return [publication.data["n"] for publication in result.publications]

    await world("publish lobby 1 10")
    subscription = (await Follower.join(await connect(DIRECT), "lobby")).subscription
    position = await subscription.history()
    assert_equal(numbers(position), [], "without a limit")
    assert position.offset >= 10 and position.epoch, "no position"
    everything = await subscription.history(limit=-1)
    assert_equal(numbers(everything), list(range(1, 11)), "all")
    assert_equal(numbers(await subscription.history(limit=2)), [1, 2], "the oldest")
    newest = await subscription.history(limit=2, reverse=True)
    assert_equal(numbers(newest), [10, 9], "the newest")
    eighth = everything.publications[7].offset
    since = StreamPosition(offset=eighth, epoch=everything.epoch)
    assert_equal(numbers(await subscription.history(limit=5, since=since)), [9, 10], "the last")
    other = StreamPosition(offset=eighth, epoch="another")
    refused = await failure(subscription.history(limit=5, since=other))
    assert_equal(refused.code, 112, "another epoch")


async def sees_who_is_present():
    one, two = await connect(DIRECT), await connect(DIRECT)
    subscription = (await Follower.join(one, "people:a")).subscription
    assert_equal(len((await subscription.presence()).clients), 1, "alone")
    await Follower.join(two, "people:a")
    clients = (await subscription.presence()).clients
    assert_equal(set(clients), {one.events.id, two.events.id}, "with another")
    assert all(info.client == id for id, info in clients.items()), "another's name"
    stats = await subscription.presence_stats()
    assert_equal((stats.num_clients, stats.num_users), (2, 1), "figures")
    await two.disconnect()
    while (await subscription.presence_stats()).num_clients != 1:
        await asyncio.sleep(0.01)


async def sees_others_join_and_leave():
    one, two = await connect(DIRECT), await connect(DIRECT)
    follower = await Follower.join(one, "people:a", join_leave=True)
    other = (await Follower.join(two, "people:a")).subscription
    await until("the join", lambda: two.events.id in follower.joined)
    assert two.events.id not in follower.left, "left before it left"
    await other.unsubscribe()
    await until("the leave", lambda: two.events.id in follower.left)


async def may_not_publish_by_default():
    follower = await Follower.join(await connect(DIRECT), "lobby")
    refused = await failure(follower.subscription.publish({"n": 0}))
    assert_equal(refused.code, 108, "refused with")
    await world("publish lobby 1 1")
    await follower.has_exactly(1)


async def publishes_what_is_never_stored():
    sender = await Follower.join(await connect(DIRECT), "typing:a")
    receiver = await Follower.join(await connect(DIRECT), "typing:a")
    await sender.subscription.publish({"typing": True})
    notice = (await until("the notice", lambda: receiver.publications))[0]
    assert_equal(notice.data, {"typing": True}, "data")
    assert not notice.offset, f"an offset: {notice.offset}"
    assert notice.info.client, "nobody is named as the sender"
    history = await receiver.subscription.history(limit=-1)
    assert_equal(history.publications, [], "history")
    await world("publish typing:a 1 1")
    await receiver.has_exactly(2)


async def publishes_what_is_stored():
    sender = await Follower.join(await connect(DIRECT), "open:a")
    receiver = await Follower.join(await connect(DIRECT), "open:a")
    await sender.subscription.publish({"text": "hello"})
    delta = (await until("the delta", lambda: receiver.publications))[0]
    assert delta.offset > 0, "it has no offset"
    assert delta.info.client, "nobody is named as the sender"
    history = await receiver.subscription.history(limit=-1)
    data = [publication.data for publication in history.publications]
    assert_equal(data, [{"text": "hello"}], "history")


async def is_told_that_there_is_no_rpc():
    client = await connect(DIRECT)
    assert_equal((await failure(client.rpc("anything", {}))).code, 108, "refused with")
    await (await Follower.join(client, "lobby")).has_exactly(0)


async def unsubscribes_and_subscribes_back_to_back():
    follower = await Follower.join(await connect(DIRECT), "lobby")
    for count in range(0, 200, 10):
        await follower.subscription.unsubscribe()
        await follower.subscription.subscribe()
        await world(f"publish lobby {count} 10")
        await follower.has_exactly(count + 10)
    ended = [ctx for ctx in follower.unsubscribed if ctx.code != 0]
    assert_equal(ended, [], "ended by the server")
    assert_equal(follower.reloads, 0, "reloads")


async def unsubscribes_and_subscribes_under_load():
    follower = await Follower.join(await connect(DIRECT), "lobby")
    await world("stream lobby 0 300")
    for _ in range(20):
        await follower.subscription.unsubscribe()
        await follower.subscription.subscribe()
        await follower.subscription.ready(10)
    await world("settle")
    await follower.has_exactly(300)
    assert_equal(follower.reloads, 0, "reloads")


async def unsubscribed_it_gets_nothing_and_recovers_on_return():
    client = await connect(DIRECT)
    follower = await Follower.join(client, "lobby")
    witness = await Follower.join(client, "witness")
    await follower.subscription.unsubscribe()
    await world("publish lobby 0 5")
    await world("publish witness 0 1")
    await witness.has_exactly(1)
    assert_equal(follower.publications, [], "while unsubscribed")
    await follower.subscription.subscribe()
    await follower.has_exactly(5)


async def answers_pings():
    client = await connect(DIRECT)
    await asyncio.sleep(4)
    assert_equal(client.state, ClientState.CONNECTED, "state")
    assert_equal(len(client.events.connecting), 1, "times of connecting")
