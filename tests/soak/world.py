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
CREATE TABLE parent(id INTEGER PRIMARY KEY, v);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE, v);
CREATE TABLE bare(a, b);
CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT, n INTEGER);
"""
#: Columns of the table ``wide``: so many that an image takes two rows of the outbox.
WIDTH = 40
SCHEMA += f"CREATE TABLE wide(id INTEGER PRIMARY KEY, {', '.join(f'c{number}' for number in range(1, WIDTH))});"
KEYS = 80
WRITERS = 2
#: The position from which on a table is captured as it is now.
BREAK = """SELECT max(id) FROM _appliance_break WHERE "table" = ?"""
#: What a foreign program waits for the lock, seconds.
LOCK_S = 60.0


@dataclass
class World:
    """The file, its writers, and whether they may go on. ``written``: rows of ``log`` that were acknowledged.

    ``ending`` are the epochs that end because another file comes in the place of this one, ``torn`` those of which
    the server still serves the file while it comes, ``dead`` those that have ended.
    """

    db: Path
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    written: int = 0
    commits: int = 0
    ending: set[str] = field(default_factory=set)
    torn: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    _pens: threading.Lock = field(default_factory=threading.Lock)
    _writers: dict[int, sqlite3.Connection] = field(default_factory=dict)
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
        turn = 0
        try:
            while not self.stop.is_set():
                with self._pens:
                    db = self._writer(number)
                    for _ in range(chance.randrange(1, 20)):
                        if self.stop.is_set():
                            break
                        turn += 1
                        self._transaction(db, chance, number, turn)
                self.stop.wait(chance.random() ** 4 * 0.2)
        except sqlite3.Error as error:
            self.failures.append(f"writer {number}: {error!r}")

    def _writer(self, number: int) -> sqlite3.Connection:
        """Give a writer's connection, which it keeps."""
        if number not in self._writers:
            db = sqlite3.connect(self.db, timeout=LOCK_S, isolation_level=None, check_same_thread=False)
            db.execute(f"PRAGMA recursive_triggers={number % 2}")
            db.execute("PRAGMA foreign_keys=ON")
            self._writers[number] = db
        return self._writers[number]

    def close_writers(self) -> None:
        """Close the writers' connections, in stillness; they open others."""
        for db in self._writers.values():
            db.close()
        self._writers.clear()

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
            (f"INSERT{how} INTO parent VALUES(?, ?)", (key % 20, other)),
            (f"UPDATE{how} parent SET id = ? WHERE id = ?", (other % 20, key % 20)),
            ("DELETE FROM parent WHERE id = ?", (key % 20,)),
            ("INSERT OR REPLACE INTO child VALUES(?, (SELECT id FROM parent WHERE id >= ? LIMIT 1), ?)",
             (key, other % 20, room)),
            ("INSERT INTO bare VALUES(?, ?)", (key, name)),
            ("UPDATE bare SET b = ? WHERE a = ?", (name, key)),
            ("DELETE FROM bare WHERE a BETWEEN ? AND ?", (key, key + 5)),
            (f"INSERT{how} INTO wide(id, c1, c{WIDTH - 1}) VALUES(?, ?, ?)", (key % 30, room, name)),
            (f"UPDATE wide SET c{WIDTH - 1} = ?, c5 = ? WHERE c1 = ?", (name, other, room)),
            ("DELETE FROM wide WHERE id = ?", (key % 30,)),
        ))  # fmt: skip

    def flood(self, rows: int) -> None:
        """Commit many events at once."""
        with self._pens, closing(self.open()) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM wide")
            many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            db.execute(f"{many} INSERT INTO wide(id, c1, c{WIDTH - 1}) SELECT 1000 + i, i % 4, i FROM n", (rows,))
            db.execute("DELETE FROM wide WHERE id >= 1000 + ?", (rows // 2,))
            db.execute("COMMIT")

    def vacuum(self) -> None:
        """Have the file written anew, which gives rows without a key other rowids; wait until the server knows."""
        with self._pens, closing(self.open()) as db:
            before = db.execute(BREAK, ("bare",)).fetchone()
            db.execute("VACUUM")
            self._wait_for_break(db, "bare", before)

    def checkpoint(self) -> None:
        """Begin the WAL anew, as another program may."""
        with closing(self.open()) as db:
            db.execute("PRAGMA busy_timeout=100").fetchall()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def hold_lock(self, seconds: float) -> None:
        """Keep all others from writing."""
        with closing(self.open()) as db:
            db.execute("BEGIN IMMEDIATE")
            self.stop.wait(seconds)
            db.execute("ROLLBACK")

    def hold_snapshot(self, seconds: float) -> None:
        """Keep the WAL from being begun anew."""
        with closing(self.open()) as db:
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM item").fetchone()
            self.stop.wait(seconds)
            db.execute("ROLLBACK")

    def reshape(self, chance: random.Random) -> None:
        """Change the shape of the table ``shape``, and wait until the server has seen it."""
        with self._pens, closing(self.open()) as db:
            self._columns += 1
            before = db.execute(BREAK, ("shape",)).fetchone()
            db.execute("BEGIN IMMEDIATE")
            db.execute(f"ALTER TABLE shape ADD COLUMN c{self._columns} DEFAULT {self._columns}")
            db.execute("UPDATE shape SET v = ?", (chance.random(),))
            db.execute("COMMIT")
            self._wait_for_break(db, "shape", before)

    def _wait_for_break(self, db: sqlite3.Connection, table: str, before: tuple[Any, ...]) -> None:
        deadline = time.monotonic() + LOCK_S
        while db.execute(BREAK, (table,)).fetchone() == before and not self.stop.is_set():
            self.stop.wait(0.01)
            if time.monotonic() > deadline:
                self.failures.append(f"the server does not see what has become of {table}")
                self.stop.set()
