"""The nouns that every part of the program shares.

Nothing here does I/O, awaits, or reads a clock. Everything is frozen: what has been read once is trusted
from there on.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import msgspec

#: A value as SQLite stores it. TEXT that is not UTF-8 is a ``str`` decoded with ``surrogateescape``, so that
#: its bytes can be had back; every other ``str`` is clean.
SQLiteValue: TypeAlias = int | float | str | bytes | None

#: The encoding of a file that nobody has given another (https://sqlite.org/pragma.html#pragma_encoding).
UTF_8 = "UTF-8"

#: The values of one row, in the order of ``Shape.columns``.
Row: TypeAlias = tuple[SQLiteValue, ...]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

#: Everything that is ours in a user's file begins with this; no such table is a topic.
INTERNAL_PREFIX = "_appliance_"

#: How the names (folded) of tables begin that SQLite, this program and Litestream keep for themselves.
KEPT_PREFIXES = ("sqlite_", INTERNAL_PREFIX, "_litestream_")


class Affinity(enum.Enum):
    """A column's type affinity (https://sqlite.org/datatype3.html, section 3.1)."""

    INTEGER = "INTEGER"
    REAL = "REAL"
    NUMERIC = "NUMERIC"
    TEXT = "TEXT"
    BLOB = "BLOB"

    @classmethod
    def of(cls, declared: str) -> Affinity:
        """Give the affinity of a declared type, by SQLite's five rules in their order."""
        folded = ascii_fold(declared)
        if "int" in folded:
            return cls.INTEGER
        if "char" in folded or "clob" in folded or "text" in folded:
            return cls.TEXT
        if "blob" in folded or not folded:
            return cls.BLOB
        if "real" in folded or "floa" in folded or "doub" in folded:
            return cls.REAL
        return cls.NUMERIC


@dataclass(frozen=True, slots=True)
class Column:
    """One captured column.

    ``declared`` is the declared type as written (``""`` when there is none). ``collation`` is the column's own
    (``BINARY``, ``NOCASE``, ``RTRIM`` or an application's). ``affinity`` follows from ``declared``, but for the
    columns of STRICT tables declared ANY, whose affinity is BLOB. ``encoding`` is the file's, of which BINARY compares
    the bytes: ``UTF-8``, ``UTF-16le`` or ``UTF-16be``.
    """

    name: str
    declared: str
    affinity: Affinity
    collation: str = "BINARY"
    encoding: str = UTF_8

    @property
    def boolean(self) -> bool:
        """Whether 0 and 1 in it are sent as ``false`` and ``true``."""
        return ascii_fold(self.declared) in ("boolean", "bool")

    @property
    def json(self) -> bool:
        """Whether TEXT in it is sent as the JSON it holds."""
        return ascii_fold(self.declared) in ("json", "jsonb")


@dataclass(frozen=True, slots=True)
class Shape:
    """One version of one table's shape: what the values of an outbox row mean.

    ``columns`` are the captured columns in the table's order; secret and VIRTUAL ones are left out.
    ``key`` holds the positions in ``columns`` of the primary key's columns, in the key's order.
    ``rowid`` is true for a table without a primary key: its rowid is then captured before all columns and is
    the key (unstable: VACUUM may change it). Both may be absent (``key == ()`` and not ``rowid``) when the key
    holds a secret column or when the rowid cannot be named; such events carry no ``Key``.
    ``standard``: the table is one of ours (PROTOCOL, section 7); its ``id`` is not captured, its key is
    ``reference_id``.
    """

    id: int
    table: str
    columns: tuple[Column, ...]
    key: tuple[int, ...] = ()
    rowid: bool = False
    standard: bool = False
    #: Where the columns are, by their folded names; found once, as it is asked for several times an event.
    places: Mapping[str, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        places = {ascii_fold(column.name): place for place, column in enumerate(self.columns)}
        object.__setattr__(self, "places", places)

    @property
    def width(self) -> int:
        """How many values one image has in the outbox."""
        return len(self.columns) + self.rowid


class Op(enum.IntEnum):
    """What an outbox row is; the numbers are the ``op`` column of the outbox."""

    MORE = 0
    CREATE = 1
    UPDATE = 2
    DELETE = 3
    MESSAGE = 4
    #: Not an event: before it, some tables' events are not complete (``store.tables.breaks``).
    BREAK = 5
    #: One group that the row of the next ``DELETE`` was joined to: ``v0`` the group, ``v1`` the join row's permission.
    GRANTS = 6


# Images and changes are tuples by name: made for each event, in a quarter of the time that a frozen dataclass takes.
class Image(NamedTuple):
    """A row as it was or is at one moment.

    ``values`` follow ``Shape.columns``. ``rowid`` is set where ``Shape.rowid``. ``cut`` holds the positions of
    the values that were longer than the event limit and were not stored; they stand as ``None`` in ``values``.
    """

    values: Row
    rowid: int | None = None
    cut: frozenset[int] = frozenset()


class Change(NamedTuple):
    """One committed change of one row.

    ``id`` is the event's position in the one order of all changes and durable messages. ``new`` is absent for a
    delete, ``old`` for a create. ``joins`` are the groups that a deleted row of a standard table was joined to, each
    with the join row's permission.
    """

    id: int
    op: Op
    shape: Shape
    new: Image | None
    old: Image | None
    joins: tuple[tuple[str, int], ...] = ()


# Made for each message, in a third of the time that a tuple by name takes; it holds nothing that could hold it.
class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a user topic.

    ``id`` is ``None`` for a topic that is not durable. ``body`` is the message as canonical JSON (UTF-8).
    ``sender`` is the sender's ``reference_id``.
    """

    id: int | None
    topic: str
    sender: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the one order of all changes and durable messages; comparable only within one epoch."""

    epoch: str
    id: int


@dataclass(frozen=True, slots=True)
class Topic:
    """A user topic as the store keeps it. Names compare without ASCII case; ``name`` is the stored spelling.

    Messages up to the event id ``begun`` are of others that had its name before.
    """

    name: str
    durable: bool
    permission: int
    owner: str | None
    begun: int = 0


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a connection acts for: an issuer's subject, or a guest.

    ``subject`` is the ``reference_id`` of a user of ours, or an external issuer's ``sub``. ``groups`` are those that an
    external token names; a user of ours is in the groups that the store says, at the moment it is asked.
    ``registered``: the token stands for an account of this store, and ends with it. ``appointed``: it is an
    administrator because the store says so just now, not by its token. Times are in seconds since the Unix epoch;
    ``issued_at`` is ``None`` where the token does not say it.
    """

    issuer: str
    subject: str
    admin: bool
    expires_at: float
    groups: frozenset[str] = frozenset()
    guest: bool = False
    issued_at: float | None = None
    token_id: str = ""
    key_id: str = ""
    registered: bool = False
    appointed: bool = False

    @property
    def sender(self) -> str:
        """What its messages say of whom they are from. A guest is known here by its address, which is nobody's else."""
        return "guest" if self.guest else self.subject


@functools.lru_cache(4096)  # asked for each event
def ascii_fold(name: str) -> str:
    """Fold a topic's or table's name as SQLite compares names: A–Z only."""
    return name.translate(_ASCII_FOLD)


_ASCII_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def quote_identifier(name: str) -> str:
    """Quote a name for SQL, whatever is in it (https://sqlite.org/lang_keywords.html)."""
    return '"' + name.replace('"', '""') + '"'
