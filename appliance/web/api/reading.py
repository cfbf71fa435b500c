"""What a GET of rows answers: a page of them, or one, and the rows that they refer to.

All of it is read in one transaction, with the decision on each row in the query that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request

from appliance.errors import BadRequest
from appliance.model import JSON, ascii_fold
from appliance.protocol.permissions import Verb
from appliance.protocol.values import ValueOptions, legible
from appliance.protocol.wording import quote, unknown
from appliance.store.tables import rows
from appliance.store.tables.resources import Resource
from appliance.store.tables.rows import Found
from appliance.web.api import documents, query
from appliance.web.api.documents import JSONAPI, Relationship
from appliance.web.api.opened import Opened

#: A total is counted so far; what it costs is bounded by that and, for each request, by ``query_s``.
TOTAL_LIMIT: Final = 100_000

_AFTER, _NUMBER = "page[after]", "page[number]"


def page(
    request: Request, asked: query.Query, opened: Opened, options: ValueOptions, *, through: bool = False
) -> dict[str, JSON]:
    """Give the document of a page of rows that may be read. Raises ``RequestError``.

    ``through``: by reading all of the table, for when few of its rows are for this caller.
    """
    resource = opened.resource
    fields = _fields(asked, opened, resource)
    terms = query.ordered(asked, resource)
    if through:
        terms = rows.through(terms)
    begin = query.begins(asked, resource, terms, opened.standing)
    wanted = [opened.rights.on_rows(Verb.READ, opened.grant), query.compiled(asked, resource).sql]
    offset = 0 if asked.number is None else (asked.number - 1) * asked.size
    where = [*wanted, begin] if begin is not None else wanted
    found, more = rows.page(opened.db, resource, where, terms, asked.size, offset)
    path = documents.path_of(resource)
    first = _link(path, request, {_AFTER: None, _NUMBER: None})
    links: dict[str, JSON] = {"self": _link(path, request, {}), "first": first}
    if more:
        cursor = query.cursor(resource, terms, found[-1])
        links["next"] = _link(path, request, {_AFTER: cursor, _NUMBER: None})
    if asked.number is not None and asked.number > 1:
        links["prev"] = _link(path, request, {_NUMBER: str(asked.number - 1)})
    related = opened.related()
    data: list[JSON] = [documents.resource_object(resource, each, related, options, fields) for each in found]
    document: dict[str, JSON] = {"jsonapi": JSONAPI, "links": links, "data": data}
    if asked.total:
        counted = rows.count(opened.db, resource, wanted, TOTAL_LIMIT + 1)
        document["meta"] = {"total": min(counted, TOTAL_LIMIT), "exact": counted <= TOTAL_LIMIT}
    return document | _included(asked, opened, found, options)


def one(asked: query.Query, opened: Opened, found: Found, options: ValueOptions) -> dict[str, JSON]:
    """Give the document of one row. Raises ``RequestError``."""
    resource = opened.resource
    fields = _fields(asked, opened, resource)
    data = documents.resource_object(resource, found, opened.related(), options, fields)
    path = documents.path_of(resource, documents.identifier(resource, found))
    document: dict[str, JSON] = {"jsonapi": JSONAPI, "links": {"self": path}, "data": data}
    return document | _included(asked, opened, [found], options)


def _included(asked: query.Query, opened: Opened, found: Sequence[Found], options: ValueOptions) -> dict[str, JSON]:
    """Give the rows that these refer to, each once, as far as they may be read; nothing where none were asked for."""
    if asked.include is None:
        return {}
    resource = opened.resource
    own = {documents.identifier(resource, each) for each in found}
    referred: dict[str, tuple[Resource, dict[str, None]]] = {}
    for each in _wanted(asked.include, opened.related()):
        _, names = referred.setdefault(ascii_fold(each.target.name), (each.target, {}))
        for row in found:
            value = documents.value_of(resource, row, ascii_fold(each.column))
            if isinstance(value, str) and not (each.target.name == resource.name and value in own):
                names[value] = None
    included: list[JSON] = []
    for folded, (target, names) in referred.items():
        may = opened.rights.on_rows(Verb.READ, opened.rights.granted[folded])
        related, fields = opened.related(target), _fields(asked, opened, target)
        included += [
            documents.resource_object(target, each, related, options, fields)
            for each in rows.referred(opened.db, target, list(names), may)
        ]
    return {"included": included}


def _wanted(include: Sequence[str], related: Sequence[Relationship]) -> list[Relationship]:
    """Give the relationships that are to be followed. Raises ``BadRequest``."""
    known = {ascii_fold(each.name): each for each in related}
    for name in include:
        if ascii_fold(name) not in known:
            names = [each.name for each in related]
            message = unknown(name, "a relationship that can be included", names)
            raise BadRequest(message, parameter="include")
    return [known[ascii_fold(name)] for name in include]


def _fields(asked: query.Query, opened: Opened, resource: Resource) -> tuple[str, ...] | None:
    """Give the fields of a table that are asked for, ``None`` for all. Raises ``BadRequest``."""
    fields = asked.fields.get(ascii_fold(legible(resource.name)))
    known = {*resource.sent, *(ascii_fold(each.name) for each in opened.related(resource))}
    for name in fields or ():
        if ascii_fold(name) not in known:
            raise BadRequest(
                f"{quote(resource.name)} has no field {quote(name)} that is sent", parameter=f"fields[{resource.name}]"
            )
    return fields


def _link(path: str, request: Request, changed: Mapping[str, str | None]) -> str:
    """Give the request's own address with some parameters changed, never with its token."""
    left_out = {"token", *changed}
    given = [(name, value) for name, value in request.query_params.multi_items() if name not in left_out]
    given += [(name, value) for name, value in changed.items() if value is not None]
    return f"{path}?{urlencode(given)}" if given else path
