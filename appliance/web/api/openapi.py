"""``/openapi.json``: the HTTP API described from the schema as it is, for what its reader may do (OpenAPI 3.1)."""

from __future__ import annotations

from typing import Any, Final

from appliance import __version__
from appliance.model import JSON, Column, ascii_fold
from appliance.protocol.json import INTEGER_MAX, INTEGER_MIN
from appliance.protocol.permissions import MOST, Verb
from appliance.protocol.values import legible
from appliance.store.access.grants import TableGrant, TableKind
from appliance.store.access.rights import Rights
from appliance.store.tables.making import COLUMNS_LIMIT, NAME_LIMIT, TYPES
from appliance.store.tables.resources import Resource
from appliance.store.tables.standard import WORLD
from appliance.web.api import rules
from appliance.web.api.components import COMPONENTS, STRICT, SYSTEM, Schema
from appliance.web.api.documents import MEDIA_TYPE, Relationship, is_id, path_of
from appliance.web.api.parameters import IF_MATCH, IF_NONE_MATCH, list_parameters, row_parameters
from appliance.web.api.reading import TOTAL_LIMIT
from appliance.web.api.standing import STANDING

#: The kinds of tables whose rows a column of a new table may refer to.
_REFERRED: Final = (TableKind.STANDARD, TableKind.ACCOUNT)
_ERRORS: Final[Schema] = {"$ref": "#/components/schemas/errors"}


def describe(tables: list[tuple[Resource, TableGrant, list[Relationship]]], rights: Rights | None) -> JSON:
    """Give the description. ``rights`` are the reader's; ``None`` for one who has not said who it is."""
    paths: dict[str, Any] = dict(STANDING)
    for resource, grant, related in tables:
        if rights is not None:
            paths |= _paths(resource, grant, related, rights)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "live-appliance",
            "version": __version__,
            "description": "The rows of a SQLite file as JSON:API, and messages; /live, a WebSocket, tells changes.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": COMPONENTS,
    }


def _paths(resource: Resource, grant: TableGrant, related: list[Relationship], rights: Rights) -> dict[str, Any]:
    row = _answer(resource, related, "The row", one=True)
    one: dict[str, Any] = {
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}],
        "get": _operation(resource, "read", row | _NOT_CHANGED, [*row_parameters(resource, related), IF_NONE_MATCH]),
    }
    if _ever(rights, grant, Verb.UPDATE):
        changed = _answer(resource, related, "The row as it then is", one=True)
        body = _body(resource, related, rights, new=False)
        one["patch"] = _operation(resource, "change", changed | _NOTHING, [IF_MATCH], body)
    if _ever(rights, grant, Verb.DELETE):
        one["delete"] = _operation(resource, "delete", _NOTHING, [IF_MATCH])
    rows = _answer(resource, related, "A page of the rows that you may read", one=False)
    several: dict[str, Any] = {"get": _operation(resource, "list", rows, list_parameters(resource, related))}
    if rules.may_ever_create(rights, grant):
        created = _answer(resource, related, "The new row", one=True, status="201")
        found = {"id": "$response.body#/data/id"}
        created["201"]["links"] = {
            each["operationId"]: {"operationId": each["operationId"], "parameters": found}
            for method, each in one.items()
            if method != "parameters"
        }
        several["post"] = _operation(resource, "create", created, body=_body(resource, related, rights, new=True))
    path = path_of(resource)
    return {path: several, f"{path}/{{id}}": one}


def _ever(rights: Rights, grant: TableGrant, verb: Verb) -> bool:
    """Whether there may be a row to which it may be done."""
    return rights.on_rows(verb, grant)[0] != "(0)"


def _operation(
    resource: Resource,
    verb: str,
    responses: Schema,
    parameters: list[Schema] | None = None,
    body: Schema | None = None,
) -> Schema:
    made: Schema = {
        "tags": [legible(resource.name)],
        "operationId": f"{verb}_{legible(resource.name)}",
        "responses": responses | {"default": _REFUSAL},
    }
    if parameters:
        made["parameters"] = parameters
    if body is not None:
        made["requestBody"] = {"required": True, "content": {MEDIA_TYPE: {"schema": body}}}
    return made


_REFUSAL: Final[Schema] = {"description": "A refusal", "content": {MEDIA_TYPE: {"schema": _ERRORS}}}
_NOTHING: Final[Schema] = {"204": {"description": "It is done"}}
_NOT_CHANGED: Final[Schema] = {"304": {"description": "The row is as If-None-Match says"}}


# --- what is asked ------------------------------------------------------------------------------------------------


def _body(resource: Resource, related: list[Relationship], rights: Rights, *, new: bool) -> Schema:
    if new and resource.shape.standard and resource.name == WORLD:
        return _new_table(rights)
    written = [column for name, column in resource.columns.items() if _is_written(resource, rights, name)]
    attributes: Schema = {
        "type": "object",
        "properties": {legible(each.name): _taken(resource, each) for each in written},
        "additionalProperties": False,
    }
    required = [
        legible(each.name)
        for each in written
        if (folded := ascii_fold(each.name)) in resource.needed and folded not in resource.defaulted
    ]
    data: Schema = {
        "type": "object",
        "required": ["type"] if new else ["type", "id"],
        "properties": {"type": {"const": legible(resource.name)}, "attributes": attributes},
    }
    if not new:
        data["properties"]["id"] = {"type": "string", "description": "the id in the path"}
    if new and required:
        attributes["required"] = required
        data["required"] = [*data["required"], "attributes"]
    if related and not (new and any(each.column in required for each in related)):
        links = {each.name: _link(each) for each in related}
        data["properties"]["relationships"] = {"type": "object", "properties": links, "additionalProperties": False}
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


def _new_table(rights: Rights) -> Schema:
    """Describe the document that makes a standard table."""
    known = [each.table for each in rights.granted.values() if each.kind in _REFERRED and each.known(rights.may)]
    bits = {"type": "integer", "minimum": 0, "maximum": MOST}
    name = {"type": "string", "minLength": 1, "maxLength": NAME_LIMIT, "pattern": "^[A-Za-z][A-Za-z0-9_]*$"}
    column = {
        "type": "object",
        "required": ["name", "type"],
        "properties": {
            "name": name,
            "type": {"enum": [*TYPES, *sorted(known)], "description": "a standard table: its rows are referred to"},
            "required": {"type": "boolean"},
            "unique": {"type": "boolean"},
        },
        "additionalProperties": False,
    }
    attributes = {
        "type": "object",
        "required": ["table_name"],
        "properties": {
            "table_name": name,
            "columns": {"type": "array", "items": column, "maxItems": COLUMNS_LIMIT},
            "permission": bits,
            "default_permission": bits,
        },
        "additionalProperties": False,
    }
    data = {
        "type": "object",
        "required": ["type", "attributes"],
        "properties": {"type": {"const": WORLD}, "attributes": attributes},
    }
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


def _is_written(resource: Resource, rights: Rights, folded: str) -> bool:
    if folded in resource.generated:
        return False
    if not resource.shape.standard:
        return not is_id(resource, folded) or folded != "id"
    if folded in rules.ADMINISTRATORS and not rights.principal.admin:
        return False
    return folded not in (*rules.KEPT, "id")


def _taken(resource: Resource, column: Column) -> Schema:
    """Give what a column takes. SQLite takes any value in a column that is not STRICT, and so does the API."""
    folded = ascii_fold(column.name)
    described: Schema = {"description": column.declared} if column.declared else {}
    if resource.shape.standard and (folded == "permission" or (resource.name, folded) == (WORLD, "default_permission")):
        return {"type": "integer", "minimum": 0, "maximum": MOST, "description": "permission bits"}
    if resource.shape.standard and (resource.name, folded) in SYSTEM:
        return SYSTEM[resource.name, folded]
    if column.name == resource.table.integer_key:
        return {"type": ["integer", "null"], "minimum": INTEGER_MIN, "maximum": INTEGER_MAX} | described
    nullable = folded not in resource.needed
    if resource.table.strict and column.declared.upper() in STRICT:
        only = STRICT[column.declared.upper()]
        return {"anyOf": [only, {"type": "null"}]} if nullable else only
    if column.json:
        return described if nullable else described | {"not": {"type": "null"}}
    kinds = ["string", "number"] + ["null"] * nullable + ["boolean"] * column.boolean
    forms: list[Schema] = [
        {"type": kinds},
        {"$ref": "#/components/schemas/blob"},
        {"$ref": "#/components/schemas/real"},
    ]
    return {"anyOf": forms} | described


def _link(each: Relationship) -> Schema:
    target = {
        "type": "object",
        "required": ["type", "id"],
        "properties": {"type": {"const": each.target.name}, "id": {"type": "string"}},
    }
    return {"type": "object", "required": ["data"], "properties": {"data": {"anyOf": [target, {"type": "null"}]}}}


# --- what is answered -----------------------------------------------------------------------------------------------


def _answer(resource: Resource, related: list[Relationship], words: str, *, one: bool, status: str = "200") -> Schema:
    row: Schema = {
        "type": "object",
        "required": ["type", "id"],
        "properties": {
            "type": {"const": legible(resource.name)},
            "id": {"type": "string"},
            "attributes": {
                "type": "object",
                "properties": {
                    legible(each.name): {"description": each.declared} if each.declared else {}
                    for each in resource.shape.columns
                    if each.name != "id"
                },
            },
            "relationships": {"type": "object", "properties": {each.name: _link(each) for each in related}},
            "links": {"type": "object", "properties": {"self": {"type": "string"}}},
        },
    }
    data = row if one else {"type": "array", "items": row}
    document: Schema = {
        "type": "object",
        "required": ["jsonapi", "data"],
        "properties": {"jsonapi": {"type": "object"}, "links": {"type": "object"}, "data": data},
    }
    if related:
        other = {"type": "object", "required": ["type", "id", "attributes"]}
        document["properties"]["included"] = {"type": "array", "items": other}
    if not one:
        total = {"total": {"type": "integer", "minimum": 0, "maximum": TOTAL_LIMIT}, "exact": {"type": "boolean"}}
        document["properties"]["meta"] = {"type": "object", "properties": total}
    tag: Schema = {"ETag": {"description": "The row's version, for If-Match", "schema": {"type": "string"}}}
    answer: Schema = {"description": words, "content": {MEDIA_TYPE: {"schema": document}}}
    return {status: answer | ({"headers": tag} if one else {})}
