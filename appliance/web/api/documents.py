"""Rows as JSON:API resources, and documents as what is to be written (https://jsonapi.org/format/1.1/)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote as percent_encoded

from appliance.errors import REQUEST_ERRORS, BadJson, BadRequest, Conflict, Forbidden, Invalid
from appliance.model import JSON, Affinity, Column, SQLiteValue, ascii_fold
from appliance.protocol import values
from appliance.protocol.assignments import stored
from appliance.protocol.json import decode, encode
from appliance.protocol.values import ValueOptions, legible
from appliance.protocol.wording import kind, quote, unknown
from appliance.store.tables.resources import Resource
from appliance.store.tables.rows import Found

MEDIA_TYPE: Final = "application/vnd.api+json"
JSONAPI: Final[JSON] = {"version": "1.1"}
#: Rows are sent whole here: a page is bounded by its bytes instead.
_WHOLE: Final = 1 << 40
#: In a path clients take these for directions, percent-encoded, too
#: (https://url.spec.whatwg.org/#double-dot-path-segment).
_DOTS: Final = (".", "..")


# --- which row ------------------------------------------------------------------------------------------------------


def identifier(resource: Resource, found: Found) -> str | None:
    """Give a row's ``id``; ``None`` when its table has no key that can be sent.

    A key of one column is its value as text, where a column's affinity makes it the same value again; every other key
    is a JSON list of the values as they are sent.
    """
    shape = resource.shape
    if shape.rowid:
        return str(found.image.rowid)
    if not shape.key:
        return None
    columns = [shape.columns[position] for position in shape.key]
    given = [found.image.values[position] for position in shape.key]
    if len(given) == 1 and (simple := _simple(columns[0], given[0])) is not None:
        return simple
    key = values.key(found.image, replace(shape, rowid=False), ValueOptions(event_limit=_WHOLE))
    return None if key is None else key.decode()


def _simple(column: Column, value: SQLiteValue) -> str | None:
    if isinstance(value, str):
        listed = value[:1] in ("[", "") or value in _DOTS
        return None if listed or column.boolean or column.json else legible(value)
    if isinstance(value, int) and column.affinity in (Affinity.INTEGER, Affinity.NUMERIC) and not column.boolean:
        return str(value)
    return None


def key_of(resource: Resource, text: str) -> tuple[SQLiteValue, ...] | None:
    """Give the key that an ``id`` names; ``None`` when it can be none of this table."""
    shape = resource.shape
    columns = [shape.columns[position] for position in shape.key]
    if shape.rowid:
        return (int(text),) if _is_integer(text) else None
    if text.startswith("["):
        try:
            given = decode(text)
            if isinstance(given, list) and len(given) == len(columns) and given:
                return tuple(stored(column, value) for column, value in zip(columns, given, strict=True))
        except (BadJson, Invalid):
            return None
    return (text,) if len(columns) == 1 and text else None


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 20 and -(1 << 63) <= int(text) < 1 << 63


def path_of(resource: Resource, row_id: str | None = None) -> str:
    """Give the path of a table, or of one of its rows."""
    path = f"/api/{percent_encoded(legible(resource.name), safe='')}"
    return path if row_id is None else f"{path}/{percent_encoded(row_id, safe='')}"


def etag(resource: Resource, found: Found) -> str:
    """Give the ``ETag`` of a row: what its values hash to, as whoever writes by SQL need not count ``version``.

    What they are called, and declared as, counts, too: it changes what is sent.
    """
    named = [(column.name, column.declared) for column in resource.shape.columns]
    hashed = hashlib.sha256(repr((named, found.image.values, found.image.rowid)).encode("utf-8", "surrogateescape"))
    return f'"{hashed.hexdigest()[:20]}"'


def versions(resource: Resource, found: Found) -> tuple[str, ...]:
    """Give what a writer may name the row by that it has seen: the ``ETag``, or a standard table's ``version``."""
    version = value_of(resource, found, "version") if resource.shape.standard else None
    return (etag(resource, found), *((f'"{version}"',) if isinstance(version, int) else ()))


def value_of(resource: Resource, found: Found, name: str) -> SQLiteValue:
    """Give the value of a column, by its folded name; ``None`` of one that is never sent."""
    at = resource.shape.places.get(name)
    return None if at is None else found.image.values[at]


# --- rows to documents ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Relationship:
    """A foreign key to a standard table, under its name in documents."""

    name: str
    column: str
    target: Resource


def relationships(resource: Resource, every: Mapping[str, Resource], *, hidden: bool = False) -> list[Relationship]:
    """Give the relationships of a table: foreign keys that hold the ``reference_id`` of a standard table's row.

    ``hidden``: also those of columns that are written and never sent. One is called as its column without ``_id``;
    where that is no name or is taken, ``_row`` is put behind.
    """
    taken = {*resource.columns, "id", "type"}
    found = []
    for reference in resource.references:
        target = every.get(ascii_fold(reference.table))
        if target is None or not target.shape.standard or ascii_fold(reference.target_column) != "reference_id":
            continue
        if ascii_fold(reference.column) not in resource.sent and not hidden:
            continue
        name = reference.column[:-3] if ascii_fold(reference.column).endswith("_id") else reference.column
        while ascii_fold(name) in taken or not name:
            name += "_row"
        taken.add(ascii_fold(name))
        found.append(Relationship(name, reference.column, target))
    return found


def resource_object(
    resource: Resource,
    found: Found,
    related: list[Relationship],
    options: ValueOptions,
    fields: tuple[str, ...] | None = None,
) -> dict[str, JSON]:
    """Give a row as a resource object. ``fields``: only these attributes and relationships."""
    row_id = identifier(resource, found)
    wanted = None if fields is None else set(map(ascii_fold, fields))
    sent = values.wire(found.image, resource.shape, replace(options, event_limit=_WHOLE))
    attributes: dict[str, JSON] = {}
    for column in resource.shape.columns:
        name = legible(column.name)
        if (wanted is None or ascii_fold(name) in wanted) and not (name == "id" and is_id(resource, name)):
            attributes[name] = sent[name]
    made: dict[str, JSON] = {"type": legible(resource.name), "id": row_id, "attributes": attributes}
    named = {ascii_fold(column.name): legible(column.name) for column in resource.shape.columns}
    links: dict[str, JSON] = {}
    for each in related:
        if wanted is None or ascii_fold(each.name) in wanted:
            target_id = sent[named[ascii_fold(each.column)]]
            links[each.name] = _relationship(each, target_id)
    if links:
        made["relationships"] = links
    made["links"] = {"self": path_of(resource, row_id)}
    if "__lossy" in sent and "__lossy" not in named:
        made["meta"] = {"lossy": sent["__lossy"]}
    return made


def sent(resource: Resource, found: Found, options: ValueOptions) -> dict[str, JSON]:
    """Give the values of a row as they are sent, by the column's own name."""
    named = values.wire(found.image, resource.shape, replace(options, event_limit=_WHOLE))
    return {column.name: named[legible(column.name)] for column in resource.shape.columns}


def is_id(resource: Resource, folded: str) -> bool:
    """Whether a column is the whole key, so that it is the ``id`` of the resource and no attribute."""
    keys = [resource.shape.columns[position] for position in resource.shape.key]
    return len(keys) == 1 and ascii_fold(keys[0].name) == folded


def _relationship(each: Relationship, target_id: JSON) -> JSON:
    if not isinstance(target_id, str):
        return {"data": None}
    return {
        "data": {"type": each.target.name, "id": target_id},
        "links": {"related": path_of(each.target, target_id)},
    }


# --- documents to rows ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What a document asks to be stored. ``values`` by the column's own name, ``pointers`` to where each stood.

    ``row_id`` is the ``id`` that the document names, if it does; ``given`` are the values as it has them.
    """

    values: Mapping[str, SQLiteValue]
    pointers: Mapping[str, str]
    row_id: str | None
    given: Mapping[str, JSON] = field(default_factory=dict)


def read(document: JSON, resource: Resource, related: list[Relationship]) -> Asked:
    """Read the document of a POST or PATCH. Raises ``RequestError``, with ``pointer`` where something is at fault."""
    data = _data(document, resource)
    row_id = data.get("id")
    if row_id is not None and not isinstance(row_id, str):
        raise BadRequest(f'"id" is a string, this is {kind(row_id)}', pointer="/data/id")
    asked: dict[str, SQLiteValue] = {}
    pointers: dict[str, str] = {}
    given: dict[str, JSON] = {}
    for name, value in _members(data, "attributes").items():
        column = _column(resource, name)
        pointer = f"/data/attributes/{escaped(name)}"
        if column.name in asked:
            raise BadRequest(f"the column {quote(column.name)} is there twice", pointer=pointer)
        asked[column.name] = _stored(column, value, pointer)
        pointers[column.name] = pointer
        given[column.name] = value
    known = {each.name: each for each in related}
    for name, value in _members(data, "relationships").items():
        pointer = f"/data/relationships/{escaped(name)}"
        if name not in known:
            raise BadRequest(unknown(name, f"a relationship of {quote(resource.name)}", known), pointer=pointer)
        column = resource.columns[ascii_fold(known[name].column)]
        target = _target(value, known[name], pointer)
        if asked.setdefault(column.name, target) != target:
            raise Conflict(f"{quote(name)} and {quote(column.name)} name two rows", pointer=pointer)
        pointers[column.name] = pointer
        given[column.name] = target
    return Asked(asked, pointers, row_id, given)


def attributes(document: JSON, resource: Resource) -> dict[str, JSON]:
    """Give the attributes of a document as they were sent, for a row that the server names. Raises as ``read`` does."""
    data = _data(document, resource)
    if data.get("id") is not None:
        raise named_here()
    return _members(data, "attributes")


def named_here() -> Forbidden:
    """Give the refusal of an ``id`` that a client gives a new row."""
    return Forbidden("the server gives the id; leave it out", pointer="/data/id")


def _data(document: JSON, resource: Resource) -> dict[str, JSON]:
    if not isinstance(document, dict) or "data" not in document:
        raise BadRequest('the document is an object with "data"', pointer="")
    data = document["data"]
    if not isinstance(data, dict):
        raise BadRequest(f'"data" is one resource object, this is {kind(data)}', pointer="/data")
    wanted = data.get("type")
    if not isinstance(wanted, str):
        raise BadRequest(f'"type" must be there and name the table: {quote(resource.name)}', pointer="/data/type")
    if ascii_fold(wanted) != ascii_fold(legible(resource.name)):
        raise Conflict(f"this path is of {quote(resource.name)}, not of {quote(wanted)}", pointer="/data/type")
    return data


def _members(data: Mapping[str, JSON], name: str) -> dict[str, JSON]:
    members = data.get(name, {})
    if not isinstance(members, dict):
        raise BadRequest(f'"{name}" is an object, this is {kind(members)}', pointer=f"/data/{name}")
    return members


def _column(resource: Resource, name: str) -> Column:
    column = resource.columns.get(ascii_fold(name))
    if column is None or (resource.shape.standard and ascii_fold(name) == "id"):
        known = [legible(each.name) for each in resource.shape.columns]
        message = unknown(name, f"a column of {quote(resource.name)}", known)
        raise BadRequest(message, pointer=f"/data/attributes/{escaped(name)}")
    return column


def _stored(column: Column, value: JSON, pointer: str) -> SQLiteValue:
    try:
        return stored(column, value)
    except Invalid as error:
        raise Invalid(error.message, pointer=pointer) from None


def _target(value: JSON, each: Relationship, pointer: str) -> str | None:
    data = value.get("data", ...) if isinstance(value, dict) else ...
    if data is None:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("type"), str) or not isinstance(data.get("id"), str):
        raise BadRequest('a relationship is {"data":{"type":…,"id":…}} or {"data":null}', pointer=pointer)
    if ascii_fold(str(data["type"])) != ascii_fold(each.target.name):
        raise Conflict(f"{quote(each.name)} refers to {quote(each.target.name)}", pointer=f"{pointer}/data/type")
    return str(data["id"])


def escaped(name: str) -> str:
    """Give a name as a part of a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


# --- errors -----------------------------------------------------------------------------------------------------------


_TITLES: Final = {each.code: each.cause for each in REQUEST_ERRORS}
_SOURCES: Final = ("pointer", "parameter", "header")


def error_document(status: int, code: str, message: str, detail: Mapping[str, JSON]) -> bytes:
    """Give the document of an error, with the ``source`` that its detail names."""
    described: dict[str, JSON] = {"status": str(status), "code": code, "title": _TITLES[code], "detail": message}
    source: dict[str, JSON] = {name: detail[name] for name in _SOURCES if name in detail}
    if source:
        described["source"] = source
    return encode({"jsonapi": JSONAPI, "errors": [described]})
