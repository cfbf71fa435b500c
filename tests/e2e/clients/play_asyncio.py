"""``play_asyncio.py URL``: the seed's requests with the asyncio client of ``websockets``, as in the README."""

from __future__ import annotations

import asyncio
import json
import sys

from websockets.asyncio.client import connect

from tests.e2e.clients.play_requests import REQUESTS


async def play(url: str) -> None:
    received: list[str] = []
    async with connect(url) as live:
        for request in REQUESTS:
            await live.send(json.dumps(request))
        async for text in live:
            received.append(str(text))
            frame = json.loads(text)
            if (frame["ObjectType"], frame["EventType"]) == ("orders", "delete"):
                await live.send(json.dumps({"method": "destroy-topic", "attributes": {"name": "test"}}))
            elif frame["ObjectType"] == "destroy-topic":
                break
        told = {"topic": "transcript", "message": received}
        await live.send(json.dumps({"method": "new-message", "attributes": told}))
        while json.loads(await live.recv())["ObjectType"] != "new-message":
            pass


asyncio.run(play(sys.argv[1]))
