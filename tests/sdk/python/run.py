"""run.py VERSION SCENARIO: ends with 0, or with 1 and the reason on stderr."""

import asyncio
import importlib
import importlib.metadata
import os
import sys
import traceback

import faults
import scenarios
import tokens

VERSIONS = {"current": "0.7.0", "older": "0.5.0"}


async def main(version, name):
    installed = importlib.metadata.version("centrifuge-python")
    assert installed == VERSIONS[version], f"centrifuge-python {installed} is installed"
    if name.startswith("an_event_source"):
        # Only the current environment has a reader of events.
        modules = [importlib.import_module("events")]
    else:
        modules = [scenarios, faults, tokens]
    await next(getattr(module, name) for module in modules if hasattr(module, name))()


if __name__ == "__main__":
    status = 0
    try:
        asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 55))
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread may still be waiting for an answer of the world; it has nothing left to do.
    os._exit(status)
