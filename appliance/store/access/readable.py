"""The decision about a row (``permits``) once more, as one SQL expression for lists of rows."""

from __future__ import annotations

from collections.abc import Collection

from appliance.model import Principal, SQLiteValue, quote_identifier
from appliance.protocol.permissions import GROUP_SHIFT, OWNER_SHIFT, Verb, permits
from appliance.store.access.grants import CLOSED, TableGrant, TableKind
from appliance.store.file.texts import placeholder


def readable(
    grant: TableGrant, principal: Principal, groups: Collection[str], verb: Verb = Verb.READ
) -> tuple[str, tuple[SQLiteValue, ...]]:
    """Say as SQL, over a row of the table under its own name, exactly what ``permits`` says of that row.

    Gives the expression, in parentheses, and its parameters; both for one principal and its groups of the moment.
    """
    if principal.admin:
        return "(1)", ()
    if grant.kind in (TableKind.JOIN, TableKind.MEMBERSHIP):
        return _join(grant, principal, groups, verb)
    if grant.kind is TableKind.PLAIN:
        return _plain(grant, principal, groups, verb)
    return _standard(grant, principal, groups, verb)


def _has(column: str, bit: int) -> str:
    return f"CASE typeof({column}) WHEN 'integer' THEN {column} ELSE 0 END & {bit}"


def _standard(
    grant: TableGrant, principal: Principal, groups: Collection[str], verb: Verb
) -> tuple[str, tuple[SQLiteValue, ...]]:
    table = quote_identifier(grant.table)
    ways = [_has(f"{table}.permission", verb)]
    values: list[SQLiteValue] = []
    if not principal.guest:
        owner = "reference_id" if grant.kind is TableKind.ACCOUNT else "user_account_id"
        ways.append(f"({table}.{owner} COLLATE BINARY = ? AND {_has(f'{table}.permission', verb << OWNER_SHIFT)})")
        values.append(principal.subject)
    if groups and grant.join_table is not None and grant.join_column is not None:
        join, column = quote_identifier(grant.join_table), quote_identifier(grant.join_column)
        marks, bound = zip(*map(placeholder, sorted(groups)), strict=True)
        ways.append(
            f"EXISTS(SELECT 1 FROM {join} WHERE {join}.{column} = {table}.reference_id "
            f"AND {join}.usergroup_id COLLATE BINARY IN ({','.join(marks)}) "
            f"AND {_has(f'{join}.permission', verb << GROUP_SHIFT)})"
        )
        values += bound
    return f"({' OR '.join(ways)})", tuple(values)


def _join(
    grant: TableGrant, principal: Principal, groups: Collection[str], verb: Verb
) -> tuple[str, tuple[SQLiteValue, ...]]:
    membership = grant.kind is TableKind.MEMBERSHIP
    if grant.object_table is None or grant.object_column is None:
        raise ValueError(f"{grant.table} joins nothing")
    joined = TableGrant(
        table=grant.object_table,
        kind=TableKind.ACCOUNT if membership else TableKind.STANDARD,
        guarded=CLOSED,
        join_table=grant.table,
        join_column=grant.object_column,
    )
    table = quote_identifier(joined.table)
    if verb in (Verb.PEEK, Verb.READ):
        condition, values = _standard(joined, principal, groups, Verb.READ)
    elif membership or principal.guest:
        return "(0)", ()
    else:
        condition, values = f"{table}.user_account_id COLLATE BINARY = ?", (principal.subject,)
    column = f"{quote_identifier(grant.table)}.{quote_identifier(grant.object_column)}"
    return f"(EXISTS(SELECT 1 FROM {table} WHERE {table}.reference_id = {column} AND {condition}))", values


def _plain(
    grant: TableGrant, principal: Principal, groups: Collection[str], verb: Verb
) -> tuple[str, tuple[SQLiteValue, ...]]:
    if grant.owner_column is None:
        return ("(1)" if permits(principal, groups, verb, grant.guarded) else "(0)"), ()
    if permits(principal, groups, verb, grant.guarded._replace(owner=None)):
        return "(1)", ()
    if principal.guest or not grant.guarded.permission & (verb << OWNER_SHIFT):
        return "(0)", ()
    column = f"{quote_identifier(grant.table)}.{quote_identifier(grant.owner_column)}"
    # The first comparison is for the index, under the column's affinity; the second is the one of ``owner_of``.
    values: list[SQLiteValue] = [principal.subject]
    if _is_digits(principal.subject):
        values.append(int(principal.subject))
    shown = f"CASE typeof({column}) WHEN 'text' THEN {column} WHEN 'integer' THEN CAST({column} AS TEXT) END"
    found = f"{column} COLLATE BINARY IN ({','.join('?' * len(values))}) AND {shown} = ? COLLATE BINARY"
    return f"({found})", (*values, principal.subject)


def _is_digits(text: str) -> bool:
    """Whether a text is how SQLite shows a 64-bit integer."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) <= 19 and -(1 << 63) <= int(text) < 1 << 63
