"""Streams of events as httpx-sse reads them. It leaves it to the application to come back."""

import asyncio
import json

import httpx
import httpx_sse

from world import PROXIED, assert_equal, until, world


class Follower:
    """Everything that it was told, by room, as the judge wants it."""

    def __init__(self, path):
        self.url = httpx.URL(PROXIED.replace("ws", "http", 1)).join(path)
        self.seen, self.pings, self.losses, self.last_id, self.retry = {}, 0, 0, "", 1000
        self.task = asyncio.create_task(self.follow())

    async def follow(self):
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                try:
                    await self.read(client)
                except httpx.TransportError:
                    pass
                self.losses += 1
                await asyncio.sleep(self.retry / 1000)

    async def read(self, client):
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        async with httpx_sse.aconnect_sse(client, "GET", self.url, headers=headers) as source:
            async for event in source.aiter_sse():
                self.last_id = event.id or self.last_id
                self.retry = event.retry or self.retry
                self.take(event)

    def take(self, event):
        if event.event == "ping":
            self.pings += 1
            return
        told = event.json()
        seen = self.seen.setdefault(told["room"], [["joined", 0]])
        if event.event == "reload":
            seen.append(["reload", told["offset"]])
        else:
            assert event.event == "message", event
            seen.append(["delta", told["offset"], told["data"]])

    def count(self, room):
        return len(self.seen.get(room, [0])) - 1


async def an_event_source_resumes_after_the_line_was_cut():
    follower = Follower("/v1/events?room=lobby&room=other")
    await until("the first ping", lambda: follower.pings)
    await world("publish lobby 0 10")
    await until("the first deltas", lambda: follower.count("lobby") == 10)
    await world("cut")
    await until("the loss", lambda: follower.losses)
    await world("publish lobby 10 2000")
    await world("publish other 0 50")
    await world("mend")
    await world("stream lobby 10000 100")
    await world("settle")
    await until(
        "what was missed",
        lambda: follower.count("lobby") >= 2110 and follower.count("other") >= 50,
    )
    for room in ["lobby", "other"]:
        await world(f"check {room} {json.dumps(follower.seen[room])}")


async def an_event_source_is_told_to_reload_after_history_was_trimmed():
    follower = Follower("/v1/rooms/short:a/events")
    await until("the first ping", lambda: follower.pings)
    await world("publish short:a 0 5")
    await until("the first deltas", lambda: follower.count("short:a") == 5)
    await world("cut")
    await until("the loss", lambda: follower.losses)
    await world("publish short:a 5 50")
    await world("mend")
    await until("the reload", lambda: follower.count("short:a") == 6)
    assert_equal(follower.seen["short:a"][-1][0], "reload", "the last event")
    await world("publish short:a 55 5")
    await until("what comes then", lambda: follower.count("short:a") == 11)
    await world(f"check short:a {json.dumps(follower.seen['short:a'])}")
