"""The way from a scenario to the test that runs it, and the waiting that all scenarios share."""

import asyncio
import os
import sys
import time

DIRECT = os.environ["ROOMWIRE_DIRECT"]
PROXIED = os.environ["ROOMWIRE_PROXIED"]


async def world(request):
    """Has the test do something to the server or the line; see `tests/sdk/world.rs`."""
    print(f"world {request}", flush=True)
    answer = (await asyncio.to_thread(sys.stdin.readline)).strip()
    assert answer == "ok", f"world {request[:80]}: {answer}"


async def until(what, condition):
    """Waits until `condition` gives something truthy, which it then gives."""
    start = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() - start < 30, f"waited 30 s for {what}"
        await asyncio.sleep(0.005)
    return found


def assert_equal(actual, expected, what):
    assert actual == expected, f"{what}: expected {expected}, got {actual}"


async def failure(awaitable):
    """The error that an awaitable must end with."""
    try:
        await awaitable
    except Exception as error:
        return error
    raise AssertionError("succeeded, and should have failed")
