"""The query of a list: pages, order, filters and fields (https://jsonapi.org/format/1.1/#fetching)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.errors import BadFilter, BadJson, BadRequest
from appliance.model import JSON, SQLiteValue, ascii_fold
from appliance.protocol.collations import COLLATIONS
from appliance.protocol.filters import RowFilter, compile_table
from appliance.protocol.json import decode, encode
from appliance.protocol.wording import quote, unknown
from appliance.store.tables import rows
from appliance.store.tables.resources import Resource
from appliance.store.tables.rows import Clause, Found, Term

#: Rows of a page unless ``page[size]`` says otherwise, and at most.
PAGE_SIZE: Final = 50
PAGE_LIMIT: Final = 1000
#: Pages that have a number; beyond them there is ``page[after]``, which reads no row that it skips.
NUMBER_LIMIT: Final = 100
#: A longer place than so many characters is too long for an address: it names the row instead that stands there.
CURSOR_LIMIT: Final = 4096
#: Columns in ``sort``.
SORT_LIMIT: Final = 8

#: The parameters there are, as an error lists them.
PARAMETERS: Final = (
    "page[size]", "page[number]", "page[after]", "page[total]", "sort", "filter[…]", "fields[…]", "include",
)  # fmt: skip

_FILTER = re.compile(r"filter\[(.*?)\](?:\[([^\[\]]*)\])?", re.DOTALL)
_FIELDS = re.compile(r"fields\[(.+)\]", re.DOTALL)
_WORD = re.compile(r"\w{1,64}")
_LISTS = ("in", "nin")


@dataclass(slots=True)
class Query:
    """What a list, or one row, is asked for, read from the parameters but not yet put to a table.

    ``order`` are names with whether they descend. ``fields`` and ``filters`` go by table and column, folded;
    ``conditions`` are the parts of the filters as they were written, each with its parameter. ``number`` counts from 1.
    ``include`` are relationships; ``None``: it was not said.
    """

    size: int = PAGE_SIZE
    number: int | None = None
    cursor: str | None = None
    order: tuple[tuple[str, bool], ...] = ()
    filters: dict[str, JSON] = field(default_factory=dict)
    conditions: list[tuple[str, str, JSON]] = field(default_factory=list)
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)
    include: tuple[str, ...] | None = None
    total: bool = False


def parse(parameters: Iterable[tuple[str, str]], *, single: bool = False) -> Query:
    """Read the parameters of a list, or of a ``single`` row. Raises ``BadRequest`` with the parameter at fault."""
    found = Query()
    seen: set[str] = set()
    for name, value in parameters:
        if name == "token":
            continue
        if name in seen:
            raise BadRequest(f"{quote(name)} is there twice", parameter=name)
        seen.add(name)
        try:
            if not _of_one(found, name, value) and (single or not _of_list(found, name, value)):
                raise BadRequest(_unknown(name, single=single))
        except (BadRequest, BadFilter, BadJson) as error:
            raise BadRequest(error.message, parameter=name) from None
    if found.number is not None and found.cursor is not None:
        raise BadRequest("page[number] and page[after] cannot both say where to begin", parameter="page[number]")
    return found


def _unknown(name: str, *, single: bool) -> str:
    if single:
        return unknown(name, "a parameter here", ("fields[…]", "include"))
    column = name if _WORD.fullmatch(name) else "column"
    return f"{unknown(name, 'a parameter here', PARAMETERS)}; to filter by a column write filter[{column}]=value"


def _of_one(found: Query, name: str, value: str) -> bool:
    if name == "include":
        found.include = _names(value)
    elif match := _FIELDS.fullmatch(name):
        found.fields[ascii_fold(match[1])] = _names(value)
    else:
        return False
    return True


def _of_list(found: Query, name: str, value: str) -> bool:
    if name == "page[size]":
        found.size = _whole(name, value, PAGE_LIMIT)
    elif name == "page[number]":
        found.number = _whole(name, value, NUMBER_LIMIT, "; follow links.next, which goes as far as there are rows")
    elif name == "page[after]":
        found.cursor = value
    elif name == "page[total]":
        if value not in ("true", "false"):
            raise BadRequest(f"{name} must be true or false")
        found.total = value == "true"
    elif name == "sort":
        found.order = tuple((each.removeprefix("-"), each.startswith("-")) for each in _names(value))
        if len(found.order) > SORT_LIMIT:
            raise BadRequest(f"rows are sorted by {SORT_LIMIT} columns at most")
    elif name == "filter":
        for column, wanted in _filters(value).items():
            _filter(found, name, column, wanted)
    elif match := _FILTER.fullmatch(name):
        _filter(found, name, match[1], _operand(match[2], value))
    else:
        return False
    return True


def _names(value: str) -> tuple[str, ...]:
    return tuple(each for each in value.split(",") if each)


def _filters(value: str) -> dict[str, JSON]:
    form = 'filter must be a JSON object, such as {"paid":false}; or write filter[paid]=false'
    try:
        given = decode(value)
    except BadJson as error:
        raise BadRequest(f"{form} ({error.message})") from None
    if not isinstance(given, dict):
        raise BadRequest(form)
    return given


def _whole(name: str, value: str, most: int, advice: str = "") -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 9 or not 1 <= int(value) <= most:
        raise BadRequest(f"{name} must be a whole number from 1 to {most}{advice}")
    return int(value)


def _operand(name: str | None, value: str) -> JSON:
    """Give what a filter wants of one column: all operands are text, but for lists and the one that is a yes or no."""
    if name is None:
        return value
    if name in _LISTS:
        return {name: decode(value) if value.startswith("[") else list[JSON](value.split(","))}
    if name == "null" and value in ("true", "false"):
        return {name: value == "true"}
    return {name: value}


def _filter(found: Query, parameter: str, column: str, wanted: JSON) -> None:
    """Put one condition beside the others; all must hold."""
    found.conditions.append((parameter, column, wanted))
    # ``EventType`` in this spelling is no column for ``compile_table``; folded, it is one like all others.
    folded = ascii_fold(column)
    if folded not in found.filters:
        found.filters[folded] = wanted
        return
    both = [_operators(found.filters[folded]), _operators(wanted)]
    if not both[0].keys().isdisjoint(both[1]):
        raise BadFilter(f"the filter on {quote(column)} says the same twice")
    found.filters[folded] = both[0] | both[1]


def _operators(wanted: JSON) -> dict[str, JSON]:
    if isinstance(wanted, dict):
        return wanted
    return {"in": wanted} if isinstance(wanted, list) else {"eq": wanted}


# --- put to a table -----------------------------------------------------------------------------------------------


def compiled(query: Query, resource: Resource) -> RowFilter:
    """Compile the filters for a table. Raises ``BadRequest`` with the parameter at fault."""
    try:
        return compile_table(query.filters, resource.shape, resource.hidden)
    except BadFilter as error:
        for parameter, column, wanted in query.conditions:  # the one at fault, by compiling each alone
            name = ascii_fold(column) if column == "EventType" else column
            try:
                compile_table({name: wanted}, resource.shape, resource.hidden)
            except BadFilter as first:
                raise BadFilter(first.message, parameter=parameter) from None
        raise BadFilter(error.message, parameter="filter") from None


def ordered(query: Query, resource: Resource) -> list[Term]:
    """Give the order of a list: as it was asked for, then by the key. Raises ``BadRequest``."""
    positions = {ascii_fold(column.name): at for at, column in enumerate(resource.shape.columns)}
    terms: list[Term] = []
    for name, descending in query.order:
        folded = ascii_fold(name)
        if folded not in positions:
            known = [column.name for column in resource.shape.columns]
            raise BadRequest(unknown(name, f"a column of {quote(resource.name)} to sort by", known), parameter="sort")
        column = resource.shape.columns[positions[folded]]
        if column.collation.upper() not in COLLATIONS:
            raise BadRequest(
                f"{quote(column.name)} has the collation {quote(column.collation)} of an application, whose order is "
                "not known here",
                parameter="sort",
            )
        terms.append(rows.column_term(resource, positions[folded], descending=descending))
    rest = rows.key_terms(resource, descending=bool(terms) and terms[0].descending)
    taken = {term.column for term in terms}
    return [*terms, *(term for term in rest if term.column not in taken)]


def begins(
    query: Query, resource: Resource, terms: Sequence[Term], standing: Callable[[Sequence[SQLiteValue]], Found | None]
) -> Clause | None:
    """Say which rows come after the page before; ``None`` for the first page. Raises ``BadRequest``.

    ``standing`` gives the row with a key, in the order of ``rows.key_terms``, if it may be read.
    """
    if query.cursor is None:
        return None
    given = _read_cursor(query.cursor, resource, terms)
    if given is None:
        raise BadRequest(
            "this is no place in this list; take page[after] from links.next and leave sort as it was",
            parameter="page[after]",
        )
    values, digest = given
    if digest is not None:
        found = standing(values)
        values = () if found is None else rows.at(found, terms)
        if _digest(values) != digest:
            raise BadRequest(
                "the row behind which this page begins has changed or is gone; begin with the first page again",
                parameter="page[after]",
            )
    return rows.after(terms, values)


def cursor(resource: Resource, terms: Sequence[Term], found: Found) -> str:
    """Write down the place of a row in an order, for ``page[after]``."""
    values = rows.at(found, terms)
    written = _cursor([_order_id(resource, terms), *map(_tagged, values)])
    if len(written) <= CURSOR_LIMIT:
        return written
    key = rows.at(found, rows.key_terms(resource))
    return _cursor([_order_id(resource, terms), {_DIGEST: _digest(values)}, *map(_tagged, key)])


def _cursor(given: list[JSON]) -> str:
    return base64.urlsafe_b64encode(encode(given)).rstrip(b"=").decode()


def _read_cursor(
    text: str, resource: Resource, terms: Sequence[Term]
) -> tuple[tuple[SQLiteValue, ...], str | None] | None:
    """Give the values at a place, or the key of the row that stands there and what the values hash to."""
    try:
        given = decode(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if not isinstance(given, list) or len(given) < 2 or given[0] != _order_id(resource, terms):
            return None
        first, digest, awaited = given[1], None, len(terms)
        if isinstance(first, dict) and isinstance(named := first.get(_DIGEST), str):
            digest, awaited = named, len(rows.key_terms(resource))
            del given[1]
        values = tuple(map(_untagged, given[1:]))
    except (binascii.Error, BadJson, ValueError, OverflowError):
        return None
    return (values, digest) if len(values) == awaited else None


#: What stands in a place that names its row for what the row's values hash to.
_DIGEST: Final = "digest"


def _digest(values: Sequence[SQLiteValue]) -> str:
    return hashlib.sha256(repr(values).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _order_id(resource: Resource, terms: Sequence[Term]) -> str:
    """Give a name for an order, so that a place in another is not taken for one in this."""
    said = repr((resource.name, [(term.column, term.descending) for term in terms]))
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _tagged(value: SQLiteValue) -> JSON:
    """Give a stored value as JSON, so that it can be had back to the bit; text may be no UTF-8, a number infinite."""
    if isinstance(value, (int, str)) or value is None:
        try:
            encode(value)
        except UnicodeEncodeError:
            return {"t": base64.b64encode(str(value).encode("utf-8", "surrogateescape")).decode()}
        return value
    return {"r": value.hex()} if isinstance(value, float) else {"b": base64.b64encode(value).decode()}


def _untagged(value: JSON) -> SQLiteValue:
    """Read what ``_tagged`` wrote. Raises ``ValueError``."""
    if isinstance(value, dict) and len(value) == 1:
        ((tag, text),) = value.items()
        if isinstance(text, str):
            if tag == "r":
                return float.fromhex(text)
            if tag == "b":
                return base64.b64decode(text, validate=True)
            if tag == "t":
                return base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
    if isinstance(value, (dict, list, bool, float)):
        raise ValueError("no value of a cursor")  # noqa: TRY004 – the caller asks for this one
    return value
