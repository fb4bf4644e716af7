"""A client that follows rooms and keeps all that its SDK tells it."""

import dataclasses
import json
import os

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

from world import until, world

# In Protobuf data is bytes, and what they mean is the application's business: here it is JSON.
PROTOBUF = os.environ.get("ROOMWIRE_FORMAT") == "protobuf"


def encoded(data):
    return json.dumps(data).encode() if PROTOBUF else data


def decoded(publication):
    if not PROTOBUF:
        return publication
    return dataclasses.replace(publication, data=json.loads(publication.data))


def of_objects(subscription):
    """A subscription that is given and gives objects, whatever its client speaks."""
    publish, history = subscription.publish, subscription.history

    async def publish_object(data):
        return await publish(encoded(data))

    async def history_of_objects(**options):
        result = await history(**options)
        publications = [decoded(publication) for publication in result.publications]
        return dataclasses.replace(result, publications=publications)

    subscription.publish, subscription.history = publish_object, history_of_objects
    return subscription


class ClientLog(ClientEventHandler):
    """Everything that happened to a client, besides its publications."""

    def __init__(self):
        self.id = None
        self.connecting = []
        self.disconnected = []
        self.errors = []

    async def on_connecting(self, ctx):
        self.connecting.append(ctx)

    async def on_connected(self, ctx):
        self.id = ctx.client

    async def on_disconnected(self, ctx):
        self.disconnected.append(ctx)

    async def on_error(self, ctx):
        self.errors.append(ctx)


def open_client(url, **options):
    return Client(url, events=ClientLog(), use_protobuf=PROTOBUF, **options)


async def connect(url):
    client = open_client(url)
    await client.connect()
    await client.ready(10)
    return client


class Follower(SubscriptionEventHandler):
    """`seen` is written for the judge: joined, delta and reload in the order in which they came."""

    def __init__(self, client, room, **options):
        self.room = room
        self.seen = []
        self.publications = []
        self.subscribed = []
        self.unsubscribed = []
        self.joined = []
        self.left = []
        options.setdefault("recoverable", True)
        self.subscription = of_objects(client.new_subscription(room, events=self, **options))

    @classmethod
    async def join(cls, client, room, **options):
        follower = cls(client, room, **options)
        await follower.subscription.subscribe()
        await follower.subscription.ready(10)
        return follower

    @property
    def reloads(self):
        return sum(kind == "reload" for kind, *_ in self.seen)

    async def on_subscribed(self, ctx):
        self.subscribed.append(ctx)
        at = ctx.stream_position.offset if ctx.stream_position else 0
        if not ctx.was_recovering:
            self.seen.append(["joined", at])
        elif not ctx.recovered:
            self.seen.append(["reload", at])

    async def on_publication(self, ctx):
        publication = decoded(ctx.pub)
        self.publications.append(publication)
        if publication.offset:
            self.seen.append(["delta", publication.offset, publication.data])

    async def on_unsubscribed(self, ctx):
        self.unsubscribed.append(ctx)

    async def on_join(self, ctx):
        self.joined.append(ctx.info.client)

    async def on_leave(self, ctx):
        self.left.append(ctx.info.client)

    async def has_exactly(self, count):
        """Waits for `count` publications and has them judged."""
        await until(f"{count} publications in {self.room}", lambda: len(self.publications) >= count)
        seen = json.dumps(self.seen, separators=(",", ":"))
        await world(f"check {self.room} {seen}")
