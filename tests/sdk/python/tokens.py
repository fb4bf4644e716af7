"""What an application does with tokens. They are signed here, as a backend would."""

import base64
import hashlib
import hmac
import json
import time

from centrifuge import ClientState

from follower import Follower, open_client
from world import DIRECT, assert_equal, until

SECRET = b"a secret of these tests, and no other"


def token(**claims):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    header = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    message = header + b"." + part(json.dumps(claims).encode())
    signature = hmac.new(SECRET, message, hashlib.sha256).digest()
    return (message + b"." + part(signature)).decode()


def tokens(*seconds, **claims):
    """A getter of tokens that end after so many seconds, and the list of those fetched."""
    left, fetched = list(seconds), []

    async def get(ctx=None):
        lasts = left.pop(0) if len(left) > 1 else left[0]
        fetched.append(lasts)
        return token(sub="ann", exp=int(time.time()) + lasts, **claims)

    return get, fetched


async def connect(get):
    client = open_client(DIRECT, get_token=get)
    await client.connect()
    await until("the connection", lambda: client.state == ClientState.CONNECTED)
    return client


async def fetches_another_token_when_the_first_has_expired():
    get, fetched = tokens(-60, 600)
    client = await connect(get)
    assert_equal(fetched, [-60, 600], "tokens")
    await client.disconnect()


async def refreshes_its_token_and_stays_connected():
    get, fetched = tokens(2, 600)
    client = await connect(get)
    await until("another token", lambda: len(fetched) == 2)
    await Follower.join(client, "dialog:#ann")
    assert_equal(client.events.disconnected, [], "ends")
    await client.disconnect()


async def follows_a_room_by_a_token_for_it():
    get, _ = tokens(600)
    client = await connect(get)
    of_room, fetched = tokens(2, 600, channel="secret:1")
    follower = await Follower.join(client, "secret:1", get_token=of_room)
    await until("a refresh", lambda: len(fetched) == 2)
    presence = await follower.subscription.presence()
    users = [client.user for client in presence.clients.values()]
    assert_equal(users, ["ann"], "who is there")
    assert_equal(follower.unsubscribed, [], "ends of the subscription")
    await client.disconnect()


async def is_kept_out_for_good_by_a_wrong_token():
    client = open_client(DIRECT, token=token() + "x")
    await client.connect()
    await until("the end", lambda: client.events.disconnected)
    assert_equal(client.events.disconnected[0].code, 3500, "code")
    assert_equal(client.state, ClientState.DISCONNECTED, "state")
