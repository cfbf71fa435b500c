"""How long the outbox keeps what it holds: by age, by rows, by bytes. Works: plain functions on an open connection.

The rows' bound is kept by a trigger, also while no server runs (``schema.keep_rows``). For the other two the outbox
would have to hold a time and a size in every row, written by every writer. Instead the server sets a *mark* every few
seconds: up to this id all was committed by this time, and what came since the mark before takes about so many bytes.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from appliance.capture import outbox
from appliance.store.file import schema

#: A row's bytes beside its values: header, id, shape, op, and the unused values at a byte each (measured: 35 to 45).
ROW_BYTES: Final = 40
#: So many rows are measured one by one, about 6 ms; of more, this many in stretches from all over.
SAMPLE_ROWS: Final = 5000
SAMPLE_STRETCHES: Final = 50
#: How long a batch of deletions may hold the write lock, seconds, and how many rows it has at most. A row of 40 bytes
#: takes 0.5 µs, one of 1 MiB 5 ms.
BATCH_S: Final = 0.005
BATCH_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: the least of all younger than ``age_s`` seconds, the newest ``rows``, the newest ``bytes``."""

    age_s: float = 86_400.0
    rows: int = outbox.ROW_BOUND
    bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Kept:
    """What the outbox holds. ``since``: the first of it was committed no earlier (seconds since 1970), if known."""

    oldest: int
    newest: int
    bytes: int
    since: float | None

    @property
    def rows(self) -> int:
        """How many rows: ids have no gaps."""
        return self.newest - self.oldest


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to do: bytes since the last mark, if there is anything since; the id up to which rows are to go."""

    highest: int
    unmarked: int | None
    upto: int
    kept: Kept


class Clock:
    """Tells the time for marks, in seconds since 1970: never back, and never by a leap while the server runs.

    A clock that is set while the server runs changes nothing: time goes on from where it was at the start, by the
    system's count since its boot, which counts sleep. At a start it goes on from the last mark, or from the present
    time if that is later: so a clock that is an hour ahead then ages what is kept by that hour, and no more.
    """

    def __init__(self, last: float | None) -> None:
        self._ahead = max(time.time(), last or 0.0) - _since_boot()

    def now(self) -> float:
        """Give the time."""
        return self._ahead + _since_boot()


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def last_mark(db: sqlite3.Connection) -> tuple[int, float] | None:
    """Give the newest mark's id and time."""
    row = db.execute("SELECT id, at FROM _appliance_mark ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else (row[0], row[1])


def measure(db: sqlite3.Connection, after: int, upto: int) -> int:
    """Estimate the bytes of the outbox's rows after one id, up to another. Reads a bounded number of them."""
    after = max(after, schema.oldest(db))
    count = upto - after
    if count <= 0:
        return 0
    if count <= SAMPLE_ROWS:
        return count * ROW_BYTES + int(db.execute(_SIZE, (after, upto)).fetchone()[0])
    length = SAMPLE_ROWS // SAMPLE_STRETCHES
    starts = [after + (count - length) * each // (SAMPLE_STRETCHES - 1) for each in range(SAMPLE_STRETCHES)]
    sampled = sum(int(db.execute(_SIZE, (start, start + length)).fetchone()[0]) for start in starts)
    return count * ROW_BYTES + sampled * count // SAMPLE_ROWS


#: ``octet_length`` (SQLite 3.43) does not read a long value to know its length.
_OCTETS: Final = "octet_length({})" if sqlite3.sqlite_version_info >= (3, 43, 0) else "length(CAST({} AS BLOB))"
_SIZE: Final = (
    f"SELECT total({'+'.join(f'ifnull({_OCTETS.format(value)},0)' for value in outbox.VALUES)}) "
    "FROM _appliance_outbox WHERE id > ? AND id <= ?"
)


def mark(db: sqlite3.Connection, upto: int, at: float, size: int) -> None:
    """Set a mark: up to ``upto`` all was committed by ``at``, and what came since the mark before takes ``size``."""
    if last_mark(db) is None:
        # Where the first stretch begins.
        db.execute("INSERT INTO _appliance_mark(id, at, bytes) VALUES(?, ?, 0)", (min(schema.oldest(db), upto - 1), at))
    db.execute("INSERT OR REPLACE INTO _appliance_mark(id, at, bytes) VALUES(?, ?, ?)", (upto, at, size))


def kept(db: sqlite3.Connection) -> Kept:
    """Say what the outbox holds, as far as marks tell."""
    oldest, newest = schema.oldest(db), schema.highest(db)
    stretches = _stretches(db, oldest)
    before = db.execute("SELECT max(at) FROM _appliance_mark WHERE id <= ?", (oldest,)).fetchone()[0]
    return Kept(oldest, newest, sum(int(size) for *_, size in stretches), before)


def look(db: sqlite3.Connection, limits: Retention, now: float) -> Found:
    """Say what there is to do at this time."""
    highest, last = schema.highest(db), last_mark(db)
    before = last[0] if last is not None else 0
    unmarked = measure(db, before, highest) if highest > before else None
    return Found(highest, unmarked, due(db, limits, now), kept(db))


def due(db: sqlite3.Connection, limits: Retention, now: float) -> int:
    """Give the id up to which rows are to go: never the newest, which the next id comes from (``outbox``).

    What no mark covers is young and small enough yet.
    """
    highest = schema.highest(db)
    aged = db.execute("SELECT max(id) FROM _appliance_mark WHERE at <= ?", (now - limits.age_s,)).fetchone()[0] or 0
    return min(max(int(aged), highest - limits.rows, _over(db, limits.bytes)), highest - 1)


def _over(db: sqlite3.Connection, most: int) -> int:
    """Give the id up to which rows must go so that those after it take no more than ``most`` bytes."""
    left = float(most)
    for first, last, size in reversed(_stretches(db, schema.oldest(db))):
        if size > left:
            # A stretch may be long: all that was written while no server ran. Its rows are taken for equally large.
            return last - int((last - first) * left / size)
        left -= size
    return 0


def _stretches(db: sqlite3.Connection, oldest: int) -> list[tuple[int, int, float]]:
    """Give the stretches between marks, in order: after which id, up to which, and about how many bytes are left."""
    marks = db.execute(
        "SELECT id, bytes FROM _appliance_mark WHERE id >= "
        "ifnull((SELECT max(id) FROM _appliance_mark WHERE id <= ?), 0) ORDER BY id",
        (oldest,),
    ).fetchall()
    found = []
    for (first, _), (last, size) in pairwise(marks):
        begun = max(first, oldest)
        found.append((begun, last, size * (last - begun) / (last - first)))
    return found


def trim(db: sqlite3.Connection, upto: int, rows: int) -> tuple[int, float]:
    """Delete the oldest ``rows`` rows, none after ``upto`` nor the newest; give how many and the seconds that it took.

    Marks go with the rows between them.
    """
    begun = time.perf_counter()
    last = min(upto, schema.oldest(db) + rows, schema.highest(db) - 1)
    deleted = db.execute("DELETE FROM _appliance_outbox WHERE id <= ?", (last,)).rowcount
    db.execute("DELETE FROM _appliance_mark WHERE id < (SELECT max(id) FROM _appliance_mark WHERE id <= ?)", (last,))
    return deleted, time.perf_counter() - begun
