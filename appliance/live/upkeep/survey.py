"""The survey: what was written before the server began is read through once, for what it says of each block of it.

The tail takes note of what it reads (``capture.contents``). Of all before, no more is known after a start than of which
kinds its rows are, and nothing of what was written while no server ran; whoever resumes over it would have SQLite look
at every row of its table, each time anew. So one task reads it, little by little and for a
fraction of a processor, and takes note, too; meanwhile nobody waits for it, and what it has not come to is looked
through as if there were no survey.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Final

import trio

from appliance.capture.contents import BLOCK, BLOCKS, Contents
from appliance.store.file import schema
from appliance.store.outbox import look
from appliance.store.store import Store

#: What is read at a time: two milliseconds, in one of which no other thread runs Python.
ROWS: Final = 500
BYTES: Final = 1 << 20
#: After each time it rests for so many times as long as that took: a million rows take a quarter of a minute.
REST: Final = 3.0
#: How long it waits after the file could not be read, seconds.
RETRY_S: Final = 1.0


async def survey(store: Store, upto: int) -> None:
    """Take note of what the outbox holds up to the id ``upto``, from where the tail goes on."""
    contents = store.contents.another()
    place = max(0, upto - BLOCKS * BLOCK)
    while place < upto:
        before = trio.current_time()
        try:
            place = await store.read(partial(_note, contents=contents, after=place), patient=True)
            contents.keep()
            rest = REST * (trio.current_time() - before)
        except sqlite3.Error:  # whoever reads says so; what is noted stays true
            rest = RETRY_S
        await trio.sleep(rest)


def _note(db: sqlite3.Connection, contents: Contents, after: int) -> int:
    """Take note of the next rows; give the id of the last.

    A row is there, or it is gone for good; so of a block whose first rows are gone all is seen that there will ever be.
    """
    after = max(after, schema.oldest(db) // BLOCK * BLOCK - 1)
    seen = look.behind(db, after, ROWS, BYTES)
    end = int(str(seen.rows[-1][0])) if seen.rows else seen.highest
    contents.note(after, seen.rows, end, seen.size)
    return end
