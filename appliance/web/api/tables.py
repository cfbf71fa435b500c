"""``/api/<table>`` and ``/api/<table>/<id>``: rows as JSON:API resources (https://jsonapi.org/format/1.1/)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias, TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import Response

from appliance.errors import (
    BadRequest,
    Conflict,
    Internal,
    NotAllowed,
    NotFound,
    RequestError,
    Unavailable,
)
from appliance.live.session.accounts import Accounts
from appliance.model import JSON, Principal, ascii_fold
from appliance.protocol.json import encode
from appliance.protocol.permissions import Verb
from appliance.protocol.values import ValueOptions
from appliance.protocol.wording import quote
from appliance.store.access.rights import has_system, rights_of
from appliance.store.store import Store
from appliance.store.tables import rows
from appliance.store.tables.resources import Resource
from appliance.store.tables.rows import Found
from appliance.store.tables.standard import USER_ACCOUNT, WORLD
from appliance.web.api import documents, headers, query, reading, rules, system
from appliance.web.api.audit import Deed, deed
from appliance.web.api.caller import address_of, segments
from appliance.web.api.documents import JSONAPI, MEDIA_TYPE
from appliance.web.api.entrance import Entrance
from appliance.web.api.opened import Opened, opened
from appliance.web.asgi import Receive, Scope, Send
from appliance.web.problem import headers_of, place

log = structlog.get_logger()

T = TypeVar("T")
#: The answer to a write, and what is to be logged of it.
Done: TypeAlias = tuple[Response, Deed | None]

#: Of the time for a query, what is given to finding rows in the order of a key that is not the file's.
SHARE: Final = 0.25

_LIST_METHODS: Final = "GET, HEAD, POST"
_ROW_METHODS: Final = "GET, HEAD, PATCH, DELETE"


class Tables:
    """Answers for all tables. ``query_s``: how long a list may be looked for, seconds."""

    def __init__(
        self, store: Store, entrance: Entrance, accounts: Accounts, options: ValueOptions, *, query_s: float
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._entrance = entrance
        self._options = options
        self._query_s = query_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as an ASGI application: all methods come here, so that all refusals look alike."""
        response = await self.answer(Request(scope, receive))
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """Answer one request; a refusal is an answer, too."""
        try:
            headers.check_accept(request)
            names = segments(request)[1:]
            if not 1 <= len(names) <= 2 or not all(names):
                raise NotFound("there is nothing at this path; rows are at /api/<table> and /api/<table>/<id>")
            principal = await self._entrance.principal(request)
            if len(names) == 1:
                return await self._on_table(request, principal, names[0])
            return await self._on_row(request, principal, names[0], names[1])
        except RequestError as error:
            if error.code == Internal.code:
                log.error("request_failed", method=request.method, path=request.url.path, error=place(error))
            return refusal(error)

    async def _on_table(self, request: Request, principal: Principal, table: str) -> Response:
        if request.method in ("GET", "HEAD"):
            return await self._list(request, principal, table)
        if request.method == "POST":
            async with headers.document(request) as document:
                if ascii_fold(table) == WORLD and await self._store.read(lambda db: has_system(db, WORLD)):
                    return await self._create_table(document, principal)
                return await self._create(await self._with_hash(request, document, principal, table), principal, table)
        raise _not_allowed(_LIST_METHODS)

    async def _on_row(self, request: Request, principal: Principal, table: str, row_id: str) -> Response:
        if request.method in ("GET", "HEAD"):
            return await self._read_one(request, principal, table, row_id)
        if request.method == "PATCH":
            async with headers.document(request) as document:
                document = await self._with_hash(request, document, principal, table)
                return await self._change(request, document, principal, table, row_id)
        if request.method == "DELETE":
            return await self._delete(request, principal, table, row_id)
        raise _not_allowed(_ROW_METHODS)

    # -- reading ---------------------------------------------------------------------------------------------

    async def _list(self, request: Request, principal: Principal, table: str) -> Response:
        asked = query.parse(request.query_params.multi_items())

        def work(opened: Opened) -> dict[str, JSON]:
            return reading.page(request, asked, opened, self._options)

        def through(opened: Opened) -> dict[str, JSON]:
            return reading.page(request, asked, opened, self._options, through=True)

        return _json(200, await self._read(principal, table, work, None if asked.order else through))

    async def _read_one(self, request: Request, principal: Principal, table: str, row_id: str) -> Response:
        asked = query.parse(request.query_params.multi_items(), single=True)

        def work(opened: Opened) -> Response:
            found = opened.find(row_id)
            opened.demand(Verb.READ, found)
            document = reading.one(asked, opened, found, self._options)
            if asked.include:  # the row's version does not say which versions the others have
                return _json(200, document)
            tag = documents.etag(opened.resource, found)
            if headers.is_known(request, tag):
                return Response(status_code=304, headers={"ETag": tag})
            return _json(200, document, {"ETag": tag})

        return await self._read(principal, table, work)

    async def _read(
        self,
        principal: Principal,
        table: str,
        work: Callable[[Opened], T],
        through: Callable[[Opened], T] | None = None,
    ) -> T:
        """Run ``work``; where that takes long because of the key, ``through`` instead, which reads the table once.

        Where a key is random, as a standard table's, so is where in the file the next row stands. That is quick as long
        as a page is soon full, and ten times as slow as reading from end to end for who may read a few rows of many.
        """

        def whole(db: sqlite3.Connection) -> T:
            resource = self._store.resources.read(db).get(ascii_fold(table))  # once for each schema: no query's time
            if through is not None and resource is not None and resource.scattered:
                with suppress(Unavailable), rows.reading(db, budget_s=self._query_s * SHARE):
                    return work(self._open(db, principal, table))
                with rows.reading(db, budget_s=self._query_s):
                    return through(self._open(db, principal, table))
            with rows.reading(db, budget_s=self._query_s):
                return work(self._open(db, principal, table))

        async with self._entrance.turn(principal):
            return await self._store.read(whole)

    # -- writing ---------------------------------------------------------------------------------------------

    async def _create(self, document: JSON, principal: Principal, table: str) -> Response:
        def work(opened: Opened) -> Done:
            asked = documents.read(document, opened.resource, opened.related())
            asked = _with_id(opened.resource, asked)
            values = rules.new_row(opened, asked)
            rules.check_references(opened, asked, values)
            doubtful = rules.doubtful(opened, asked)
            found = _pointing(asked, lambda: system.insert(opened.db, opened.resource, opened.grant, values, doubtful))
            if found is None:
                raise Conflict("a trigger of the table has taken the row away again")
            rules.check_parents(opened, found, asked.values)
            made = self._row(201, opened, found) if opened.may(Verb.READ, found) else self._bare(opened, found)
            return made, deed("create", opened, found, values)

        return await self._write(principal, table, work)

    async def _create_table(self, document: JSON, principal: Principal) -> Response:
        """Make a standard table: a row of ``world`` that brings one with it."""

        def work(db: sqlite3.Connection) -> Done:
            opened = self._open(db, principal, WORLD)
            rules.demand_create(opened, documents.Asked({}, {}, None))
            attributes = documents.attributes(document, opened.resource)
            pointers = {name: f"/data/attributes/{documents.escaped(name)}" for name in attributes}
            asked = documents.Asked({}, pointers, None)
            reference = _pointing(asked, lambda: system.create_table(db, opened.rights, attributes))
            found = opened.find(reference)
            made = self._row(201, opened, found) if opened.may(Verb.READ, found) else self._bare(opened, found)
            return made, deed("create", opened, found, attributes)

        return _logged(*await self._store.commit_alone(work))

    async def _with_hash(self, request: Request, document: JSON, principal: Principal, table: str) -> JSON:
        """Put a hash in the place of an account's new password: hashing takes too long to do it in a transaction.

        So it is done before it is decided on. Whoever is no administrator has as many tries as to sign in, or others
        could not sign in for all that is to be hashed.
        """
        given = system.new_password(document) if ascii_fold(table) == USER_ACCOUNT else None
        if given is None:
            return document
        rights = await self._store.read(lambda db: rights_of(db, principal) if has_system(db, USER_ACCOUNT) else None)
        if rights is None:
            return document
        client = None if rights.principal.admin else address_of(request)
        name, password = given
        try:
            hashed = await self._accounts.hashed(password, client=client)
        except BadRequest as error:
            raise BadRequest(error.message, pointer=f"/data/attributes/{name}") from None
        return system.with_hash(document, hashed)

    async def _change(
        self, request: Request, document: JSON, principal: Principal, table: str, row_id: str
    ) -> Response:
        def work(opened: Opened) -> Done:
            found = opened.find(row_id)
            opened.demand(Verb.UPDATE, found)
            headers.check_match(request, *_versions(opened, found))
            asked = documents.read(document, opened.resource, opened.related())
            if asked.row_id not in (documents.identifier(opened.resource, found), row_id):  # 07 is found for 7, too
                if asked.row_id is None:
                    raise BadRequest('"id" must be there and be the one in the path', pointer="/data/id")
                raise Conflict(f"the path is of another row than {quote(asked.row_id)}", pointer="/data/id")
            sent = documents.sent(opened.resource, found, self._options) if opened.may(Verb.READ, found) else None
            values = rules.changes(opened, found, asked, sent)
            rules.check_references(opened, asked, values)
            done = None
            if values:
                changed = _pointing(
                    asked, lambda: system.update(opened.db, opened.resource, opened.grant, found, values)
                )
                done = deed("change", opened, changed or found, values)
                if changed is None:
                    return Response(status_code=204), done
                rules.check_owner(opened, found, changed)
                rules.check_parents(opened, changed, values)
                found = changed
            if opened.may(Verb.READ, found):
                return self._row(200, opened, found), done
            return Response(status_code=204), done

        return await self._write(principal, table, work)

    async def _delete(self, request: Request, principal: Principal, table: str, row_id: str) -> Response:
        def work(opened: Opened) -> Done:
            found = opened.find(row_id)
            opened.demand(Verb.DELETE, found)
            headers.check_match(request, *_versions(opened, found))
            if not system.delete(opened.db, opened.resource, opened.grant, found):
                raise Conflict("a trigger of the table has ignored the write")
            return Response(status_code=204), deed("delete", opened, found)

        return await self._write(principal, table, work)

    async def _write(self, principal: Principal, table: str, work: Callable[[Opened], Done]) -> Response:
        def whole(db: sqlite3.Connection) -> Done:
            with rows.writing(db):
                return work(self._open(db, principal, table))

        return _logged(*await self._store.commit(whole))

    # -- both ------------------------------------------------------------------------------------------------

    def _open(self, db: sqlite3.Connection, principal: Principal, table: str) -> Opened:
        self._entrance.demand(principal)
        return opened(db, principal, self._store.resources.read(db), table)

    def _row(self, status: int, opened: Opened, found: Found) -> Response:
        document = reading.one(query.Query(), opened, found, self._options)
        lines = {"ETag": documents.etag(opened.resource, found)}
        if status == 201:
            lines["Location"] = documents.path_of(opened.resource, documents.identifier(opened.resource, found))
        return _json(status, document, lines)

    def _bare(self, opened: Opened, found: Found) -> Response:
        """Answer to who has created a row that he may not read: where it is, and nothing of it."""
        row_id = documents.identifier(opened.resource, found)
        path = documents.path_of(opened.resource, row_id)
        data: JSON = {"type": opened.resource.name, "id": row_id, "links": {"self": path}}
        return _json(201, {"jsonapi": JSONAPI, "data": data}, {"Location": path})


def refusal(error: RequestError) -> Response:
    """Answer with a JSON:API error."""
    document = documents.error_document(error.status, error.code, error.message, error.detail)
    return Response(document, error.status, headers_of(error), MEDIA_TYPE)


def _json(status: int, document: dict[str, JSON], lines: Mapping[str, str] | None = None) -> Response:
    return Response(encode(document), status, {"Vary": "Accept", **(lines or {})}, MEDIA_TYPE)


def _versions(opened: Opened, found: Found) -> tuple[str, ...]:
    """Give what to compare with; nothing to who may not read the row, and so not guess what is in it either."""
    return documents.versions(opened.resource, found) if opened.may(Verb.READ, found) else ()


def _logged(response: Response, done: Deed | None) -> Response:
    """Log what was done, now that it is committed."""
    if done is not None:
        done.log()
    return response


def _not_allowed(methods: str) -> NotAllowed:
    return NotAllowed(f"this path takes: {methods}", allow=methods)


def _with_id(resource: Resource, asked: documents.Asked) -> documents.Asked:
    """Put the ``id`` that a client gives a new row among its values. Raises ``Forbidden``, ``BadRequest``."""
    if asked.row_id is None:
        return asked
    pointer = "/data/id"
    if resource.shape.standard or resource.shape.rowid:
        raise documents.named_here()
    key = documents.key_of(resource, asked.row_id)
    if key is None:
        raise BadRequest("this can be no id of this table", pointer=pointer)
    values, pointers = dict(asked.values), dict(asked.pointers)
    for position, value in zip(resource.shape.key, key, strict=True):
        name = resource.shape.columns[position].name
        pointers.setdefault(name, pointer)
        if str(values.setdefault(name, value)) != str(value):
            raise Conflict(f"the id and {quote(name)} say different keys", pointer=pointer)
    return documents.Asked(values, pointers, asked.row_id)


def _pointing(asked: documents.Asked, write: Callable[[], T]) -> T:
    """Write, and have a refusal that names a column point to where the document has it."""
    try:
        return write()
    except RequestError as error:
        column = error.detail.pop("column", None)
        if isinstance(column, str):
            error.detail["pointer"] = asked.pointers.get(column, "/data/attributes")
        attribute = error.detail.pop("attribute", None)
        if isinstance(attribute, str):
            error.detail["pointer"] = f"/data/attributes/{attribute}"
        raise
