"""What is written: the tables, programs that write them, and the moments at which nobody writes."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE log(id INTEGER PRIMARY KEY AUTOINCREMENT, writer INTEGER, n INTEGER);
CREATE TABLE item(id INTEGER PRIMARY KEY, room INTEGER, name TEXT COLLATE NOCASE UNIQUE, n INTEGER);
CREATE TABLE pair(p TEXT, q INTEGER, v, note TEXT, PRIMARY KEY(p, q)) WITHOUT ROWID;
CREATE TABLE shape(id INTEGER PRIMARY KEY, v);
"""
KEYS = 80
#: The position from which on the table ``shape`` is captured as it is now.
BREAK = """SELECT max(id) FROM _appliance_break WHERE "table" = 'shape'"""
#: What a foreign program waits for the lock, seconds.
LOCK_S = 60.0


@dataclass
class World:
    """The file, its writers, and whether they may go on. ``written``: rows of ``log`` that were acknowledged."""

    db: Path
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    written: int = 0
    commits: int = 0
    _pens: threading.Lock = field(default_factory=threading.Lock)
    _columns: int = 0

    def make(self) -> None:
        with closing(sqlite3.connect(self.db)) as db:
            db.executescript(f"PRAGMA journal_mode=WAL; {SCHEMA}")

    @contextmanager
    def stillness(self) -> Iterator[sqlite3.Connection]:
        """Let nobody write for the time of the block, and give a connection to look at what there is."""
        with self._pens, closing(self.open()) as db:
            yield db

    def open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.db, timeout=LOCK_S, isolation_level=None)

    def write(self, number: int) -> None:
        """Write until the end, in transactions of every size, some of them rolled back."""
        chance = random.Random(f"{self.seed} {number}")
        try:
            with closing(self.open()) as db:
                db.execute(f"PRAGMA recursive_triggers={number % 2}")
                turn = 0
                while not self.stop.is_set():
                    with self._pens:
                        for _ in range(chance.randrange(1, 20)):
                            if self.stop.is_set():
                                break
                            turn += 1
                            self._transaction(db, chance, number, turn)
                    self.stop.wait(chance.random() ** 4 * 0.2)
        except sqlite3.Error as error:
            self.failures.append(f"writer {number}: {error!r}")

    def _transaction(self, db: sqlite3.Connection, chance: random.Random, number: int, turn: int) -> None:
        db.execute("BEGIN IMMEDIATE")
        count = chance.choice((1, 1, 1, 2, 3, 10, 300))
        for _ in range(count):
            try:
                db.execute(*self._statement(chance))
            except sqlite3.IntegrityError:  # the statement did nothing
                continue
        db.execute("INSERT INTO log(writer, n) VALUES(?, ?)", (number, turn))
        if chance.random() < 0.15:
            db.execute("ROLLBACK")
            return
        db.execute("COMMIT")
        self.commits += 1
        self.written += 1

    def _statement(self, chance: random.Random) -> tuple[str, tuple[Any, ...]]:
        key, other, room = chance.randrange(KEYS), chance.randrange(KEYS), chance.randrange(4)
        name = f"{chance.choice(('n', 'N'))}{chance.randrange(KEYS)}"
        how = chance.choice(("", "", " OR IGNORE", " OR REPLACE", " OR REPLACE"))
        long = "é" * chance.choice((0, 3, 3, 3, 200, 3000, 60_000 if chance.random() < 0.1 else 3))
        return chance.choice((
            (f"INSERT{how} INTO item VALUES(?, ?, ?, ?)", (key, room, name, key)),
            (f"INSERT{how} INTO item VALUES(?, ?, ?, 1), (?, ?, NULL, 2)", (key, room, name, other, room)),
            ("INSERT INTO item VALUES(?, ?, ?, 0) ON CONFLICT DO UPDATE SET n = n + 1, room = ?", (key, room, name, 3)),
            ("UPDATE item SET room = ? WHERE id = ?", (room, key)),
            ("UPDATE item SET n = n + 1 WHERE room = ?", (room,)),
            (f"UPDATE{how} item SET id = ? WHERE id = ?", (other, key)),
            (f"UPDATE{how} item SET name = ? WHERE id = ?", (name, key)),
            ("DELETE FROM item WHERE id BETWEEN ? AND ?", (key, key + room)),
            (f"INSERT{how} INTO pair VALUES(?, ?, ?, ?)", ("xyz"[room % 3], key, chance.random(), long)),
            (f"UPDATE{how} pair SET q = ?, v = ? WHERE q = ?", (other, key, key)),
            ("UPDATE pair SET note = ? WHERE p = ? AND q = ?", (long, "xyz"[room % 3], key)),
            ("DELETE FROM pair WHERE q = ?", (key,)),
            ("INSERT OR REPLACE INTO shape(id, v) VALUES(?, ?)", (key % 9, other)),
        ))  # fmt: skip

    def reshape(self, chance: random.Random) -> None:
        """Change the shape of the table ``shape``, and wait until the server has seen it."""
        with self._pens, closing(self.open()) as db:
            self._columns += 1
            (before,) = db.execute(BREAK).fetchone()
            db.execute("BEGIN IMMEDIATE")
            db.execute(f"ALTER TABLE shape ADD COLUMN c{self._columns} DEFAULT {self._columns}")
            db.execute("UPDATE shape SET v = ?", (chance.random(),))
            db.execute("COMMIT")
            deadline = time.monotonic() + LOCK_S
            while db.execute(BREAK).fetchone() == (before,) and not self.stop.is_set():
                self.stop.wait(0.01)
                if time.monotonic() > deadline:
                    self.failures.append("the server does not see that a table has changed")
                    self.stop.set()
