"""What there is to be described of the HTTP API, read from the file for who asks."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from appliance.errors import Unauthorized
from appliance.model import JSON, Principal
from appliance.protocol.json import encode
from appliance.store.access.rights import rights_of
from appliance.store.store import Store
from appliance.store.tables import rows
from appliance.web.api import documents
from appliance.web.api.caller import names_nobody
from appliance.web.api.entrance import Entrance
from appliance.web.api.openapi import describe
from appliance.web.api.opened import visible

_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Description:
    """Answers ``/openapi.json``. ``query_s``: how long the schema may be looked at, seconds."""

    store: Store
    entrance: Entrance
    query_s: float

    async def openapi(self, request: Request) -> Response:
        """Describe what the caller may do; to one who has no token, what there is for everybody."""
        try:
            principal = await self.entrance.principal(request)
        except Unauthorized:
            if not names_nobody(request):
                raise
            return Response(encode(describe([], None)), media_type=_JSON)
        async with self.entrance.turn(principal):
            document = await self.store.read(lambda db: self._described(db, principal))
        return Response(encode(document), media_type=_JSON)

    def _described(self, db: sqlite3.Connection, principal: Principal) -> JSON:
        self.store.resources.read(db)  # of many tables, once for each schema: that is no query's time
        with rows.reading(db, budget_s=self.query_s):
            every = self.store.resources.read(db)
            rights = rights_of(db, principal)
            known = [
                (resource, rights.granted[folded], visible(documents.relationships(resource, every), rights))
                for folded, resource in every.items()
                if folded in rights.granted and rights.granted[folded].known(rights.may)
            ]
            return describe([each for each in known if each[0].shape.key or each[0].shape.rowid], rights)
