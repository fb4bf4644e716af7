"""What goes wrong between an application and the server, and what the SDK makes of it."""

from centrifuge import ClientState, StreamPosition

from follower import Follower, connect
from world import DIRECT, PROXIED, assert_equal, until, world

# More than fits into one page of a replay.
BACKLOG = 5000


async def lost(client):
    await until("the loss", lambda: client.state == ClientState.CONNECTING)


async def recovers_after_the_line_was_cut():
    client = await connect(PROXIED)
    follower = await Follower.join(client, "lobby")
    quiet = await Follower.join(client, "quiet")
    await world("publish lobby 0 10")
    await follower.has_exactly(10)
    await world("cut")
    await lost(client)
    await world(f"publish lobby 10 {BACKLOG}")
    await world("stream lobby 100000 300")
    await world("mend")
    await world("settle")
    await follower.has_exactly(10 + BACKLOG + 300)
    await quiet.has_exactly(0)
    assert_equal(follower.reloads + quiet.reloads, 0, "reloads")
    assert follower.subscribed[-1].recovered, "the loss was not recovered from"


async def recovers_after_the_server_was_killed():
    client = await connect(DIRECT)
    follower = await Follower.join(client, "lobby")
    await world("publish lobby 0 100")
    await world("kill")
    await lost(client)
    await world("start")
    await world("publish lobby 100 100")
    await follower.has_exactly(200)
    assert_equal(follower.reloads, 0, "reloads")


async def reconnects_after_the_server_was_stopped():
    client = await connect(DIRECT)
    follower = await Follower.join(client, "lobby")
    await world("publish lobby 0 10")
    await follower.has_exactly(10)
    await world("stop")
    # 0.5 tells of a loss that it reconnects after as of any other disconnect.
    log = client.events
    told = (await until("the loss", lambda: log.connecting[1:] + log.disconnected))[0]
    assert_equal((told.code, told.reason), (3001, "shutdown"), "told")
    await world("start")
    await world("publish lobby 10 10")
    await follower.has_exactly(20)
    assert_equal(follower.reloads, 0, "reloads")


async def is_told_to_reload_after_history_was_trimmed():
    client = await connect(PROXIED)
    follower = await Follower.join(client, "short:a")
    await world("publish short:a 0 5")
    await follower.has_exactly(5)
    await world("cut")
    await lost(client)
    await world("publish short:a 5 50")
    await world("mend")
    await until("the return", lambda: len(follower.subscribed) == 2)
    again = follower.subscribed[1]
    told = (again.was_recovering, again.recovered)
    assert_equal(told, (True, False), "was recovering, recovered")
    await world("publish short:a 55 5")
    await follower.has_exactly(10)


async def is_told_to_reload_after_the_log_was_lost():
    client = await connect(DIRECT)
    follower = await Follower.join(client, "lobby")
    await world("publish lobby 0 5")
    await follower.has_exactly(5)
    await world("kill")
    await world("wipe")
    await world("start")
    await until("the return", lambda: len(follower.subscribed) == 2)
    first, again = follower.subscribed
    told = (again.was_recovering, again.recovered)
    assert_equal(told, (True, False), "was recovering, recovered")
    epochs = (first.stream_position.epoch, again.stream_position.epoch)
    assert epochs[0] != epochs[1], "the epoch is the old one"
    # Positions of two epochs can't be compared: the judge gets what the new one brings.
    follower.seen = [event for event in follower.seen if event[0] == "reload"]
    await world("publish lobby 0 5")
    await follower.has_exactly(10)


async def asks_for_state_when_its_position_is_lost():
    client = await connect(PROXIED)
    asked = []

    async def get_state(room):
        asked.append(room)
        position = await client.history("short:a", limit=0)
        return StreamPosition(offset=position.offset, epoch=position.epoch)

    await world("publish short:a 0 5")
    follower = await Follower.join(client, "short:a", get_state=get_state)
    assert_equal(len(asked), 1, "times asked")
    await world("cut")
    await lost(client)
    await world("publish short:a 5 50")
    await world("mend")
    await until("the return", lambda: len(follower.subscribed) == 2)
    assert_equal(len(asked), 2, "times asked after the position was lost")
    await world("publish short:a 55 5")
    await until("the rest", lambda: len(follower.publications) == 5)
    rest = [publication.data["n"] for publication in follower.publications]
    assert_equal(rest, [55, 56, 57, 58, 59], "the rest")
