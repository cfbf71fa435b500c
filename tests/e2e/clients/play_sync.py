"""``play_sync.py URL``: the seed's requests with the blocking client of ``websockets``."""

from __future__ import annotations

import json
import sys

from websockets.sync.client import connect

from tests.e2e.clients.play_requests import REQUESTS

received: list[str] = []
with connect(sys.argv[1]) as live:
    for request in REQUESTS:
        live.send(json.dumps(request))
    for text in live:
        received.append(str(text))
        frame = json.loads(text)
        if (frame["ObjectType"], frame["EventType"]) == ("orders", "delete"):
            live.send(json.dumps({"method": "destroy-topic", "attributes": {"name": "test"}}))
        elif frame["ObjectType"] == "destroy-topic":
            break
    told = {"topic": "transcript", "message": received}
    live.send(json.dumps({"method": "new-message", "attributes": told}))
    while json.loads(live.recv())["ObjectType"] != "new-message":
        pass
