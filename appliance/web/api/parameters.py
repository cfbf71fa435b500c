"""What a GET of rows may be asked for, described: the parameters of its query, and the headers about versions."""

from __future__ import annotations

from typing import Final

from appliance.model import Affinity, Column
from appliance.protocol.collations import COLLATIONS
from appliance.protocol.values import legible
from appliance.store.tables.resources import Resource
from appliance.web.api.components import Schema
from appliance.web.api.documents import Relationship
from appliance.web.api.query import NUMBER_LIMIT, PAGE_LIMIT, PAGE_SIZE, SORT_LIMIT
from appliance.web.api.reading import TOTAL_LIMIT

IF_MATCH: Final[Schema] = {"$ref": "#/components/parameters/if_match"}
IF_NONE_MATCH: Final[Schema] = {"$ref": "#/components/parameters/if_none_match"}
_OPERATORS: Final[Schema] = {"$ref": "#/components/schemas/operators"}
_CONDITION: Final[Schema] = {"$ref": "#/components/schemas/condition"}
_TEXT_CONDITION: Final[Schema] = {"$ref": "#/components/schemas/text_condition"}


def list_parameters(resource: Resource, related: list[Relationship]) -> list[Schema]:
    """Give the parameters of a list."""
    columns = [each for each in resource.shape.columns if each.collation.upper() in COLLATIONS]
    # A name with a comma in it cannot be one of several.
    names = [legible(each.name) for each in columns if "," not in each.name and not each.name.startswith("-")]
    order = [*names, *(f"-{name}" for name in names)]
    parameters = [
        _parameter("page[size]", {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": PAGE_SIZE}),
        _parameter("page[number]", {"type": "integer", "minimum": 1, "maximum": NUMBER_LIMIT}),
        _parameter("page[after]", {"type": "string"}) | {"description": "Where to begin: take it from links.next."},
        _parameter("page[total]", {"type": "boolean"}) | {"description": f"Count them, up to {TOTAL_LIMIT}."},
        *row_parameters(resource, related),
    ]
    if order:
        items = {"type": "array", "items": {"enum": order}, "minItems": 1, "maxItems": SORT_LIMIT}
        parameters.append(_parameter("sort", items) | {"style": "form", "explode": False})
    return parameters + _filters(columns)


def row_parameters(resource: Resource, related: list[Relationship]) -> list[Schema]:
    """Give the parameters of a list and of a single row: what is shown of rows, and of those that they refer to."""
    parameters = [_fields(resource, related)]
    names = [each.name for each in related if "," not in each.name]
    if names:
        described = {"style": "form", "explode": False, "description": "Have the rows that these refer to beside them."}
        parameters.append(_parameter("include", {"type": "array", "items": {"enum": names}}) | described)
        targets = {each.target.name: each.target for each in related if each.target.name != resource.name}
        parameters += [_fields(each, []) for each in targets.values()]
    return parameters


def _fields(resource: Resource, related: list[Relationship]) -> Schema:
    names = [legible(each.name) for each in resource.shape.columns] + [each.name for each in related]
    items = {"type": "array", "items": {"enum": [each for each in names if "," not in each]}}
    return _parameter(f"fields[{legible(resource.name)}]", items) | {"style": "form", "explode": False}


def _filters(columns: list[Column]) -> list[Schema]:
    if not columns:
        return []
    conditions = {
        legible(each.name): _TEXT_CONDITION if each.affinity is Affinity.TEXT else _CONDITION for each in columns
    }
    whole = {"type": "object", "properties": conditions, "additionalProperties": False}
    described = {"description": "All filters at once; what it says must hold beside filter[column]."}
    named = [each.name for each in columns if each.name.isprintable() and not set(each.name) & set("[]")]
    return [
        {"name": "filter", "in": "query", "content": {"application/json": {"schema": whole}}} | described,
        *(_parameter(f"filter[{name}]", _OPERATORS) | {"style": "deepObject", "explode": True} for name in named),
    ]


def _parameter(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}
