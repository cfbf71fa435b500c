"""``write_at_random.py FILE SEED COUNT``: random transactions, as some program of the machine would make them.

With ``-`` for FILE the statements are printed, for the ``sqlite3`` shell. What violates a
constraint changes nothing, and the next statement follows.
"""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, suppress


def statement(chance: random.Random) -> str:
    """Give one statement on the tables ``a`` (rowid, UNIQUE) and ``b`` (composite key, WITHOUT ROWID)."""
    k, u, v = chance.randrange(100), chance.randrange(60), chance.randrange(10**6)
    how = chance.choice(["", "", " OR IGNORE", " OR REPLACE", " OR REPLACE"])
    part = chance.choice(["x", "y", "z"])
    return chance.choice([
        f"INSERT{how} INTO a(k, u, v) VALUES({k}, 'u{u}', {v})",
        f"INSERT{how} INTO a(k, u, v) VALUES({k}, 'u{u}', {v}), ({(k + 1) % 100}, 'u{u + 1}', x'00{v % 90 + 10}')",
        f"UPDATE{how} a SET u = 'u{u}' WHERE k = {k}",
        f"UPDATE a SET v = {v} + 0.5 WHERE k BETWEEN {k} AND {k + 5}",
        "UPDATE a SET v = v",
        f"DELETE FROM a WHERE k BETWEEN {k} AND {k + 3}",
        f"INSERT{how} INTO b(p, q, v) VALUES('{part}', {k}, {v})",
        f"UPDATE{how} b SET q = {u} WHERE p = '{part}' AND q = {k}",
        f"INSERT OR IGNORE INTO b(p, q, v) SELECT '{part}', k, v FROM a WHERE k < 5",
        f"DELETE FROM b WHERE p = '{part}' AND q > {k}",
    ])  # fmt: skip


def history(seed: int, count: int) -> Iterator[str]:
    """Give ``count`` transactions, statement by statement; a few change the schema."""
    chance = random.Random(seed)
    yield f"PRAGMA recursive_triggers = {seed % 2}"
    for number in range(count):
        if chance.random() < 0.02:
            yield f"CREATE TABLE t_{seed}_{number} AS SELECT * FROM a"
            yield f"INSERT INTO t_{seed}_{number}(k) VALUES(1)"
            yield f"DROP TABLE t_{seed}_{number}"
        if chance.random() < 0.01:
            yield f"ALTER TABLE {chance.choice('ab')} ADD COLUMN c_{seed}_{number}"
        yield "BEGIN IMMEDIATE"
        for _ in range(chance.randrange(1, 6)):
            if chance.random() < 0.2:
                yield "SAVEPOINT s"
                yield statement(chance)
                yield chance.choice(["RELEASE s", "ROLLBACK TO s"])
            else:
                yield statement(chance)
        yield "ROLLBACK" if chance.random() < 0.25 else "COMMIT"


def main(file: str, seed: int, count: int) -> None:
    if file == "-":
        for each in history(seed, count):
            print(each, end=";\n")
        return
    with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as db:
        for each in history(seed, count):
            with suppress(sqlite3.IntegrityError):
                db.execute(each)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
