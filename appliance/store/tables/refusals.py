"""What the file refuses of a write: a constraint's words, said as an error of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from appliance.errors import Conflict, Invalid, RequestError, TooLarge
from appliance.model import ascii_fold
from appliance.protocol.wording import quote
from appliance.store.tables.resources import Resource, no_parent

#: SQLITE_CONSTRAINT_DATATYPE (https://sqlite.org/rescode.html), for which Python 3.11 has no name.
_DATATYPE: Final = 3091


@contextmanager
def refusals(resource: Resource, *, deleting: bool = False) -> Iterator[None]:
    """Say what a write of a row is refused for, in our words. Raises ``RequestError``."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError) as error:
        raise _refusal(resource, error, deleting) from error
    except OverflowError:
        raise Invalid("an integer is beyond the 64 bits that SQLite stores") from None


def _refusal(resource: Resource, error: sqlite3.Error, deleting: bool) -> RequestError:
    """Say what a constraint's refusal means, naming columns and never their values."""
    code, said = getattr(error, "sqlite_errorname", ""), str(error)
    columns = _named(resource, said)
    detail = {"column": columns[0]} if columns else {}
    named = " and ".join(map(quote, columns)) or "these columns"
    if code in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"):
        return Conflict(f"there is another row with the same value of {named}", **detail)
    if code == "SQLITE_CONSTRAINT_NOTNULL":
        return Invalid(f"{named} must not be null", **detail)
    if code == "SQLITE_CONSTRAINT_FOREIGNKEY":
        if deleting:
            return Conflict("other rows refer to this one; delete or change them first")
        return no_parent()
    if code == "SQLITE_CONSTRAINT_CHECK":
        return Invalid(f"the table's constraint refuses it: {said.partition(': ')[2]}")
    if getattr(error, "sqlite_errorcode", 0) == _DATATYPE:
        return Invalid(f"the table is STRICT: {said}", **detail)
    if code == "SQLITE_MISMATCH":
        key = resource.table.integer_key
        return Invalid("the table's integer key takes whole numbers only", **({"column": key} if key else {}))
    if code == "SQLITE_TOOBIG":
        return TooLarge("a value is longer than SQLite stores")
    return Invalid(f"the table refuses it: {said}")


def _named(resource: Resource, said: str) -> list[str]:
    """Name the columns that SQLite's words name.

    As ``UNIQUE constraint failed: t.a, t.b`` does, and ``cannot store TEXT value in INTEGER column t.a``.
    """
    listed = said.partition(" failed: ")[2] or said.partition(" column ")[2]
    names = [part.removeprefix(f"{resource.name}.") for part in listed.split(", ")]
    return [resource.columns[ascii_fold(name)].name for name in names if ascii_fold(name) in resource.columns]
