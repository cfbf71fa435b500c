"""The outbox: the tables that the triggers write into, and how they are read.

A row of the outbox is an event, or a part of one: an image that has more values than fit goes on in the next rows
(op ``more``), and an update's old image is followed by the new one, which begins on a row of its own: ``more`` again,
or ``create`` where an insert has replaced the row. So our record is never much longer than the user's, whatever length
limit the writer has set. An event's id is its last row's.

The columns have no type and no constraint but the key: an outer ``OR IGNORE`` would otherwise swallow the event.

Ids grow by one and none is given out twice, without AUTOINCREMENT, which would have every writer's every row write
``sqlite_sequence``, too (a third of all that the trigger takes): SQLite gives the highest id and one, inside the
writer's transaction (https://sqlite.org/autoinc.html). So the newest row is never deleted. And as there is one writer
at a time, who begins behind what the one before has committed or rolled back, the order of ids is that of commits: all
that is ever committed later has greater ids than what can be read, so "all after an id" leaves nothing out.
"""

from __future__ import annotations

from typing import Final

from appliance.model import Op

#: Values in one row of the outbox. Most tables fit; each unused one costs a byte. At SQLite's recommended limits for
#: hostile input (https://sqlite.org/security.html: 100 columns) a writer can still open the file.
WIDTH: Final = 24

#: A longer value is not stored. Bytes.
VALUE_LIMIT: Final = 1 << 20
#: What stands for it in a column of TEXT affinity, which holds no numbers. In others that is an empty blob, in a row
#: whose ``cut`` is 1: to find that out takes another test of each value.
LONG_TEXT: Final = int.from_bytes(b"long")

#: So many rows are kept, whoever writes and whether or not a server runs, unless configured otherwise.
ROW_BOUND: Final = 1_000_000
#: Every so many rows the bound is looked to, and at most so many rows are then deleted: a bound that was lowered is
#: come down to step by step, not by one long statement of whoever writes next.
TRIM_EVERY: Final = 64
TRIM_AT_MOST: Final = 256

#: Columns of a scratch row that say which row of the user's table it is a copy of.
KEY_WIDTH: Final = 8

#: The ``fate`` of a scratch row: its row has turned out to be displaced, and several statements ask for that.
DISPLACED: Final = 1
#: No insert replaces its row: once it is gone, whatever is told next may tell it.
OF_UPDATE: Final = 2
#: Its row is being moved or deleted by what tells it in the end: nothing else does.
TOLD_LATER: Final = 3

VALUES: Final = tuple(f"v{position}" for position in range(WIDTH))
KEYS: Final = tuple(f"k{position}" for position in range(KEY_WIDTH))

DDL: Final = (
    f"""CREATE TABLE IF NOT EXISTS "_appliance_outbox" (
    id INTEGER PRIMARY KEY, shape, op, cut, {", ".join(VALUES)}
)""",
    """CREATE TABLE IF NOT EXISTS "_appliance_shape" (id INTEGER PRIMARY KEY, "table", layout)""",
    # Copies of rows that a REPLACE may displace, between our BEFORE and our AFTER trigger.
    f"""CREATE TABLE IF NOT EXISTS "_appliance_scratch" (
    id INTEGER PRIMARY KEY, shape, part, fate, cut, {", ".join(KEYS)}, {", ".join(VALUES)}
)""",
    # Tables whose rows are written while they are written keep some copies; who writes another looks past them all.
    """CREATE INDEX IF NOT EXISTS "_appliance_scratch_shape" ON "_appliance_scratch"(shape)""",
    # Up to ``id`` all was committed by ``at`` (seconds since 1970); what came since the mark before takes ``bytes``.
    """CREATE TABLE IF NOT EXISTS "_appliance_mark" (id INTEGER PRIMARY KEY, at, bytes)""",
)


def trim_trigger(rows: int) -> str:
    """Write the trigger that keeps the newest ``rows`` rows, also while no server runs.

    Ids have no gaps, so the difference of two ids is a number of rows. ``rows`` is at least 1: the newest row stays.
    """
    return f"""CREATE TRIGGER "_appliance_trim" AFTER INSERT ON "_appliance_outbox"
WHEN NEW.id % {TRIM_EVERY} = 0
BEGIN
DELETE FROM _appliance_outbox
WHERE id <= NEW.id - {rows} AND id < (SELECT min(id) FROM _appliance_outbox) + {TRIM_AT_MOST};
END"""


def select_after(width: int = WIDTH) -> str:
    """Select what comes after an id, in order, and no more than ``width`` values a row: parameters id, row limit."""
    values = ", ".join(VALUES[:width])
    return f"SELECT id, shape, op, cut, {values} FROM _appliance_outbox WHERE id > ? ORDER BY id LIMIT ?"


#: Values of a durable message.
MESSAGE_WIDTH: Final = 4

#: A durable message: parameters topic, sender, body, idempotency key.
INSERT_MESSAGE: Final = f"INSERT INTO _appliance_outbox(op, v0, v1, v2, v3) VALUES({int(Op.MESSAGE)}, ?, ?, ?, ?)"


def parts(width: int) -> int:
    """Count the outbox rows that an image of ``width`` values takes."""
    return max(1, -(-width // WIDTH))
