"""What of a row is not for everybody to write (PROTOCOL, sections 6 and 7)."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from typing import Final

from appliance.errors import Conflict, Forbidden, Invalid, NotFound
from appliance.model import JSON, Affinity, SQLiteValue, ascii_fold
from appliance.protocol.coercion import as_number
from appliance.protocol.json import identity
from appliance.protocol.permissions import MOST, Verb, owner_of, owns, permits_on_join
from appliance.protocol.wording import quote
from appliance.store.access import accounts, grants
from appliance.store.access.grants import TableGrant, TableKind
from appliance.store.access.rights import Rights
from appliance.store.tables.resources import Resource, no_parent, parent
from appliance.store.tables.rows import Clause, Found
from appliance.store.tables.standard import BUILT_IN, GUESTS, USERS, WORLD
from appliance.web.api.documents import Asked, value_of
from appliance.web.api.opened import Opened

#: Columns of a standard table that nobody writes; ``version`` may be named, as the one that the writer has seen.
KEPT: Final = frozenset(("reference_id", "created_at", "updated_at", "version"))
#: Columns of a standard table for its owner and administrators.
OWNERS: Final = frozenset(("permission", "user_account_id"))
#: Columns of ``world`` for the table's owner and administrators: who may change rows of a table may not thereby grant.
GRANTING: Final = OWNERS | {"default_permission", "owner_column"}
#: What an account's own person may not write.
ADMINISTRATORS: Final = frozenset(("confirmed", "user_account_id"))

_TOUCHED: Final[Mapping[str, Clause]] = {
    "version": ("version + 1", ()),
    "updated_at": ("strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", ()),
}
_JOINS = (TableKind.JOIN, TableKind.MEMBERSHIP)
#: In columns of these affinities text that is a number becomes one.
_NUMBERS: Final = (Affinity.INTEGER, Affinity.NUMERIC, Affinity.REAL)


def new_row(opened: Opened, asked: Asked) -> dict[str, SQLiteValue]:
    """Give what is stored for a new row, or refuse it. Raises ``Forbidden``, ``Invalid``."""
    demand_create(opened, asked)
    rights, resource, grant = opened.rights, opened.resource, opened.grant
    _refuse_generated(resource, asked.values, asked)
    stored = dict(asked.values)
    principal = rights.principal
    if resource.shape.standard:
        for name in asked.values:
            if ascii_fold(name) in KEPT:
                raise Forbidden(f"{quote(name)} is kept by the server; leave it out", pointer=asked.pointers[name])
        if grant.kind is TableKind.STANDARD:
            mine = None if principal.guest else principal.subject
            _own(stored, "user_account_id", mine, rights, asked)
        if grant.kind is TableKind.ACCOUNT:
            _refuse_administrators(rights, stored, asked)
        if grant.kind not in _JOINS:
            # SQL may have written any number: what has other bits permits no more than all of ours.
            stored.setdefault("permission", grant.default_permission & MOST)
        _check_permission(grant, stored, asked)
    elif grant.owner_column is not None and ascii_fold(grant.owner_column) in resource.generated:
        if not principal.admin:
            raise Forbidden(
                f"the table computes whose a row is ({quote(grant.owner_column)}); administrators create them"
            )
    elif grant.owner_column is not None:
        _own(stored, grant.owner_column, None if principal.guest else principal.subject, rights, asked)
        _demand_held(resource, grant.owner_column, rights)
    given = {ascii_fold(name) for name, value in stored.items() if value is not None}
    for column in resource.table.columns:
        folded = ascii_fold(column.name)
        if folded in resource.needed - resource.defaulted - resource.generated - given:
            raise _needed(column.name, asked)
    return stored


def doubtful(opened: Opened, asked: Asked) -> str | None:
    """Name the column of a new row that is the caller only where the table takes that.

    Others own what they create; an administrator creates rows also where owners are of another kind.
    """
    resource, column = opened.resource, opened.grant.owner_column
    if column is None or column in asked.values or not opened.rights.principal.admin:
        return None
    return None if ascii_fold(column) in resource.generated | resource.needed - resource.defaulted else column


def changes(
    opened: Opened, found: Found, asked: Asked, sent: Mapping[str, JSON] | None
) -> dict[str, SQLiteValue | Clause]:
    """Give what is to be written to a row, nothing if it is so already, or refuse it. Raises ``RequestError``.

    ``sent`` is how the row is sent. To who may not read it (``None``), no answer says whether a value is the one that
    it has.
    """
    rights, resource, grant = opened.rights, opened.resource, opened.grant
    values = zip(resource.shape.columns, found.image.values, strict=True)
    before = {column.name: value for column, value in values} if sent is not None else {}
    changed = {
        name: value
        for name, value in asked.values.items()
        if sent is None or name not in before or _differ(before[name], value, sent[name], asked.given[name])
    }
    _refuse_generated(resource, changed, asked)
    for name, value in changed.items():
        if value is None and ascii_fold(name) in resource.needed:
            raise _needed(name, asked)
    if resource.shape.standard:
        _refuse_kept(changed, before, asked)
        _refuse_others(opened, found, changed, asked)
        _check_permission(grant, changed, asked)
        if grant.kind is TableKind.ACCOUNT and not rights.principal.admin and _moves(resource, found, changed):
            changed["confirmed"] = 0  # the former address was confirmed, and by an administrator
        return {**changed, **_TOUCHED} if changed else {}
    if grant.owner_column is not None and grant.owner_column in changed and not rights.principal.admin:
        folded = ascii_fold(grant.owner_column)  # a secret one, which SQL may have named, is not read here
        if folded not in resource.sent or not owns(rights.principal, owner_of(value_of(resource, found, folded))):
            raise _for_owners(grant.owner_column, asked)
    return dict(changed)


def check_owner(opened: Opened, found: Found, changed: Found) -> None:
    """Refuse a change that has made a row another's, by an owner column that is computed. Raises ``Forbidden``."""
    principal, column = opened.rights.principal, ascii_fold(opened.grant.owner_column or "")
    if principal.admin or column not in opened.resource.generated:
        return
    before, now = (owner_of(value_of(opened.resource, each, column)) for each in (found, changed))
    if before != now and not owns(principal, before):
        raise Forbidden(f"whose a row is ({quote(column)}) is for its owner and administrators to change")


def check_references(opened: Opened, asked: Asked, written: Collection[str]) -> None:
    """Refuse references to rows that may not be referred to, as if they were not there. Raises ``NotFound``.

    ``written`` are the columns that get a value: one that a row has already may be sent back with it.
    """
    for each in opened.references:
        value = asked.values.get(each.column)
        if value is None or each.column not in written:
            continue
        if not isinstance(value, str) or not opened.may_refer(each.target, value):
            raise NotFound(
                f"there is no row {quote(str(value))} that you may refer to by {quote(each.column)}",
                pointer=asked.pointers[each.column],
            )


def check_parents(opened: Opened, found: Found, written: Collection[str]) -> None:
    """Refuse what a row has come to refer to by other columns than a ``reference_id``, as if it were not there.

    That is a row of a standard table that may not be referred to: else a caller could try out whose address there is.
    Raises ``Conflict``, as the foreign key itself does.
    """
    for each in opened.resource.foreign:
        target = opened.every.get(ascii_fold(each.table))
        if target is None or not target.shape.standard or not set(each.columns) & set(written):
            continue
        if tuple(map(ascii_fold, each.target_columns)) == ("reference_id",):
            continue  # check_references
        reference = parent(opened.db, opened.resource, found.place, each, target)
        if reference is None or (reference and not opened.may_refer(target, reference)):
            raise no_parent()


def may_ever_create(rights: Rights, grant: TableGrant) -> bool:
    """Whether there may be a row of the table that this principal may create."""
    if grant.kind is TableKind.JOIN:
        return not rights.principal.guest
    if grant.kind is TableKind.MEMBERSHIP:
        return rights.principal.admin
    return rights.may(Verb.CREATE, grant.guarded)


def demand_create(opened: Opened, asked: Asked) -> None:
    """Raise ``Forbidden`` unless the principal may create such a row."""
    rights, grant = opened.rights, opened.grant
    if grant.kind not in _JOINS:
        if not rights.may(Verb.CREATE, grant.guarded):
            whom = BUILT_IN[GUESTS if rights.principal.guest else USERS]
            raise Forbidden(
                f"you may not create rows of {quote(grant.table)}; an administrator can allow it: "
                f"live-appliance table grant {shlex.quote(grant.table)} --to {whom} --can create"
            )
        return
    # A join row is the owner's of what it joins; of what is not there, nobody is the owner.
    joined = asked.values.get(str(grant.object_column))
    guard = grants.guards(opened.db, str(grant.object_table), [joined]).get(joined) if isinstance(joined, str) else None
    membership = grant.kind is TableKind.MEMBERSHIP
    allowed = rights.principal.admin or (
        guard is not None
        and permits_on_join(rights.principal, rights.groups, Verb.CREATE, guard, membership=membership)
    )
    if not allowed:
        raise Forbidden(f"rows of {quote(grant.table)} are for the owner of what they join, and for administrators")


def _needed(name: str, asked: Asked) -> Invalid:
    return Invalid(f"{quote(name)} must be given and not be null", pointer=asked.pointers.get(name, "/data/attributes"))


def _own(stored: dict[str, SQLiteValue], column: str, mine: str | None, rights: Rights, asked: Asked) -> None:
    """Make the caller the owner. Only an administrator creates rows for others.

    Who is nobody names nobody: what is no owner yet may be one in the column, as 5.0 is 5 in an INTEGER.
    """
    if column not in stored:
        stored[column] = mine
    elif not rights.principal.admin and (stored[column] if mine is None else owner_of(stored[column])) != mine:
        raise Forbidden(f"{quote(column)} of a new row is yourself; leave it out", pointer=asked.pointers[column])


def _demand_held(resource: Resource, name: str, rights: Rights) -> None:
    """Raise ``Forbidden`` where the owner column would hold somebody else.

    05 is 5 in an INTEGER; and of nobody SQLite makes the next number, where that is the key.
    """
    principal = rights.principal
    if principal.guest and name == resource.table.integer_key:
        raise Forbidden(f"each row of {quote(resource.name)} is somebody's, by its key; sign in first")
    if principal.admin or principal.guest or resource.columns[ascii_fold(name)].affinity not in _NUMBERS:
        return
    number = as_number(principal.subject)
    if number is not None and owner_of(number) != principal.subject:
        raise Forbidden(f"{quote(name)} holds numbers, and {quote(principal.subject)} would be another one's there")


def _refuse_generated(resource: Resource, values: Mapping[str, object], asked: Asked) -> None:
    for name in values:
        if ascii_fold(name) in resource.generated:
            raise Invalid(f"{quote(name)} is computed by the table; leave it out", pointer=asked.pointers[name])


def _refuse_kept(changed: dict[str, SQLiteValue], before: Mapping[str, SQLiteValue], asked: Asked) -> None:
    if "version" in changed and "version" in before:
        if not isinstance(changed["version"], int):
            raise Invalid('"version" is a whole number, as it is sent', pointer=asked.pointers["version"])
        raise Conflict(
            f"the row has version {before['version']!r}, not the one that you have seen; read it again",
            pointer=asked.pointers["version"],
        )
    for name in changed:
        if ascii_fold(name) in KEPT:
            raise Forbidden(f"{quote(name)} is kept by the server; leave it out", pointer=asked.pointers[name])


def _refuse_others(opened: Opened, found: Found, changed: dict[str, SQLiteValue], asked: Asked) -> None:
    """Refuse what is for the owner, or for administrators."""
    rights, grant = opened.rights, opened.grant
    if rights.principal.admin:
        return
    if grant.kind in _JOINS:
        for name in changed:
            if name in (grant.object_column, "usergroup_id"):
                raise Forbidden(
                    f"{quote(name)} is what the row is; delete it and create another", pointer=asked.pointers[name]
                )
        return
    if grant.kind is TableKind.ACCOUNT:
        _refuse_administrators(rights, changed, asked)
    owner = "reference_id" if grant.kind is TableKind.ACCOUNT else "user_account_id"
    if not owns(rights.principal, owner_of(value_of(opened.resource, found, owner))):
        for name in changed:
            if ascii_fold(name) in (GRANTING if grant.system == WORLD else OWNERS):
                raise _for_owners(name, asked)


def _refuse_administrators(rights: Rights, values: Mapping[str, SQLiteValue], asked: Asked) -> None:
    for name in values:
        if ascii_fold(name) in ADMINISTRATORS and not rights.principal.admin:
            raise Forbidden(f"{quote(name)} is for administrators", pointer=asked.pointers[name])


def _moves(resource: Resource, found: Found, changed: Mapping[str, SQLiteValue]) -> bool:
    """Whether an account gets another address, not only another spelling of it; one that is never sent is any."""
    email = changed.get("email")
    if not isinstance(email, str) or "email" not in resource.sent:
        return isinstance(email, str)
    return accounts.folded(email) != accounts.folded(str(value_of(resource, found, "email")))


def _for_owners(name: str, asked: Asked) -> Forbidden:
    return Forbidden(f"{quote(name)} is for the row's owner and administrators", pointer=asked.pointers[name])


def _check_permission(grant: TableGrant, values: dict[str, SQLiteValue], asked: Asked) -> None:
    for name in ("permission", *(("default_permission",) if grant.system == WORLD else ())):
        value = values.get(name, 0)
        if isinstance(value, float) and value.is_integer():  # 1.0 is 1, in JSON and under the column's affinity
            values[name] = value = int(value)
        if not isinstance(value, int) or not 0 <= value <= MOST:
            raise Invalid(f"{quote(name)} is bits, a whole number from 0 to {MOST}", pointer=asked.pointers[name])


def _differ(before: SQLiteValue, value: SQLiteValue, sent: JSON, given: JSON) -> bool:
    """Whether a value is another than the row has.

    What comes back as it was sent is the same: an integer that went as a string, JSON that is stored with white space,
    text that is not UTF-8, 5.0 from a client that knows only 5.
    """
    return (before != value or type(before) is not type(value)) and identity(sent) != identity(given)
