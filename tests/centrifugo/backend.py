"""backend.py URL KEY READ_KEY CLIENT: a backend that uses cent, with CLIENT of user ann in people:1. Ends with 0 if all went well."""

import asyncio
import sys

import cent

URL, KEY, READ_KEY, CLIENT = sys.argv[1:]
client = cent.Client(URL, KEY)


def refused(code, call):
    try:
        call()
    except cent.CentApiResponseError as error:
        assert error.code == code, error
        assert error.message, error
    else:
        raise AssertionError(f"{code} was expected")


def publishes():
    first = client.publish(cent.PublishRequest(channel="chat:1", data={"n": 1}, idempotency_key="k1"))
    again = client.publish(cent.PublishRequest(channel="chat:1", data={"n": 1}, idempotency_key="k1"))
    assert first.offset > 0 and first.epoch, first
    assert (first.offset, first.epoch) == (again.offset, again.epoch), again
    sent = client.broadcast(cent.BroadcastRequest(channels=["chat:1", "nowhere:1", "chat:2"], data={"n": 2}))
    codes = [response.error and response.error.code for response in sent.responses]
    assert codes == [None, 102, None], sent
    assert sent.responses[2].result.offset > sent.responses[0].result.offset > first.offset, sent
    typing = client.publish(cent.PublishRequest(channel="typing:1", data={}, skip_history=True))
    assert typing.offset == 0, typing
    refused(102, lambda: client.publish(cent.PublishRequest(channel="nowhere:1", data={})))
    refused(107, lambda: client.publish(cent.PublishRequest(channel="a room", data={})))
    for unsupported in [{"tags": {"k": "v"}}, {"b64data": "e30="}, {"skip_history": True}]:
        refused(108, lambda: client.publish(cent.PublishRequest(channel="chat:3", data={}, **unsupported)))
    refused(108, lambda: client.history(cent.HistoryRequest(channel="typing:1", limit=1)))


def reads_history():
    place = client.history(cent.HistoryRequest(channel="chat:1"))
    assert place.publications == [], place
    whole = client.history(cent.HistoryRequest(channel="chat:1", limit=-1))
    assert [entry.data for entry in whole.publications] == [{"n": 1}, {"n": 2}], whole
    assert whole.offset == place.offset == whole.publications[1].offset, whole
    first = cent.StreamPosition(offset=whole.publications[0].offset, epoch=whole.epoch)
    behind = client.history(cent.HistoryRequest(channel="chat:1", limit=10, since=first))
    assert [entry.data for entry in behind.publications] == [{"n": 2}], behind
    newest = client.history(cent.HistoryRequest(channel="chat:1", limit=1, reverse=True))
    assert [entry.data for entry in newest.publications] == [{"n": 2}], newest
    other = cent.StreamPosition(offset=1, epoch="another")
    refused(112, lambda: client.history(cent.HistoryRequest(channel="chat:1", limit=1, since=other)))


def removes_history():
    before = client.history(cent.HistoryRequest(channel="chat:1"))
    client.history_remove(cent.HistoryRemoveRequest(channel="chat:1"))
    after = client.history(cent.HistoryRequest(channel="chat:1", limit=10))
    assert after.publications == [], after
    assert after.epoch == before.epoch and after.offset >= before.offset, after


def sees_who_is_there():
    present = client.presence(cent.PresenceRequest(channel="people:1")).presence
    assert list(present) == [CLIENT], present
    info = present[CLIENT]
    assert (info.client, info.user, info.conn_info) == (CLIENT, "ann", {"name": "Ann"}), info
    stats = client.presence_stats(cent.PresenceStatsRequest(channel="people:1"))
    assert (stats.num_clients, stats.num_users) == (1, 1), stats
    refused(108, lambda: client.presence(cent.PresenceRequest(channel="chat:1")))
    channels = client.channels(cent.ChannelsRequest()).channels
    assert {name: of.num_clients for name, of in channels.items()} == {"people:1": 1}, channels
    assert client.channels(cent.ChannelsRequest(pattern="chat:*")).channels == {}
    refused(108, lambda: client.channels(cent.ChannelsRequest(pattern="peopl?:1")))
    [node] = client.info(cent.InfoRequest()).nodes
    assert (node.num_clients, node.num_channels, node.num_subs) == (1, 1, 1), node
    assert node.uid and node.name and node.version, node


def sends_batches():
    requests = [
        cent.PublishRequest(channel="chat:4", data=1),
        cent.PublishRequest(channel="chat:4", data=2),
        cent.HistoryRequest(channel="chat:4", limit=10),
    ]
    one, two, history = client.batch(cent.BatchRequest(requests=requests)).replies
    assert one.offset < two.offset == history.offset, history
    assert [entry.data for entry in history.publications] == [1, 2], history
    twenty = [cent.PublishRequest(channel="chat:5", data=n) for n in range(20)]
    placed = client.batch(cent.BatchRequest(requests=twenty, parallel=True)).replies
    assert len({reply.offset for reply in placed}) == 20, placed


def is_held_to_its_key():
    reader = cent.Client(URL, READ_KEY)
    assert reader.presence_stats(cent.PresenceStatsRequest(channel="people:1")).num_clients == 1
    refused(103, lambda: reader.publish(cent.PublishRequest(channel="people:1", data={})))
    refused(103, lambda: reader.history(cent.HistoryRequest(channel="chat:1")))
    refused(103, lambda: reader.disconnect(cent.DisconnectRequest(user="ann")))
    assert list(reader.channels(cent.ChannelsRequest()).channels) == ["people:1"]
    for key in ["", "wrong"]:
        try:
            cent.Client(URL, key).info(cent.InfoRequest())
        except cent.CentUnauthorizedError:
            pass
        else:
            raise AssertionError(f"the key {key!r} was taken")


def takes_rights_back():
    refused(108, lambda: client.subscribe(cent.SubscribeRequest(user="ann", channel="chat:1")))
    refused(108, lambda: client.refresh(cent.RefreshRequest(user="ann", expired=True)))
    refused(108, lambda: client.disconnect(cent.DisconnectRequest(user="ann", whitelist=[CLIENT])))
    refused(107, lambda: client.disconnect(cent.DisconnectRequest(user="")))
    client.unsubscribe(cent.UnsubscribeRequest(user="ann", channel="people:1"))
    client.disconnect(cent.DisconnectRequest(user="ann"))


async def publishes_asynchronously():
    client = cent.AsyncClient(URL, KEY)
    published = await client.publish(cent.PublishRequest(channel="chat:6", data=[1]))
    assert published.offset > 0, published
    await client._session.close()


for step in [
    publishes,
    reads_history,
    removes_history,
    sees_who_is_there,
    sends_batches,
    is_held_to_its_key,
    takes_rights_back,
]:
    step()
asyncio.run(publishes_asynchronously())
