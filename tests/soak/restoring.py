"""What was is put in the place of what is: a backup is restored, or an older copy comes over the file."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.e2e.live import run
from tests.soak.clients import PATIENCE_S, Editor, Publisher
from tests.soak.world import WRITERS, World

#: What the server says of a file of which it has read half before, and half after another came over it.
TORN = "database disk image is malformed"


@dataclass
class Restoring:
    """Takes backups and puts them back, while nobody writes. ``world`` is told which epochs end by that."""

    world: World
    publisher: Publisher
    editor: Editor
    port: Callable[[], int]
    key: str
    backups: list[Path] = field(default_factory=list)

    def back_up(self) -> None:
        """Back up while all write; the newest two backups are kept."""
        least = self.world.written
        path = self.world.db.with_name(f"backup-{time.monotonic_ns()}.db")
        made = run("backup", path, "--db", self.world.db)
        if made.returncode != 0:
            self.world.failures.append(f"no backup: {made.stderr}")
            return
        with closing(sqlite3.connect(path)) as db:
            (there,) = db.execute("SELECT count(*) FROM log").fetchone()
            (fault,) = db.execute("PRAGMA integrity_check").fetchone()
        most = self.world.written + WRITERS
        if not least <= there <= most or fault != "ok":
            self.world.failures.append(f"a backup of {least} to {most} rows of the log has {there}: {fault}")
        self.backups.append(path)
        for old in self.backups[:-2]:
            old.unlink()
        del self.backups[:-2]

    def restored(self, chance: random.Random, end: Callable[[signal.Signals], int], start: Callable[[], None]) -> None:
        """Stop the server, put a backup in the place of the store, and start it."""

        def restore() -> bool:
            number = chance.choice((signal.SIGTERM, signal.SIGKILL))
            if end(number) != 0 and number == signal.SIGTERM:
                self.world.failures.append("the server did not end in order")
            backup = chance.choice(self.backups)
            if chance.random() < 0.5:
                done = run("restore", backup, "--db", self.world.db)
                if done.returncode != 0:
                    self.world.failures.append(f"not restored: {done.stderr}")
                for kept in self.world.db.parent.glob("*.before-restore-*"):
                    kept.unlink()
            else:
                with closing(self.world.open()) as db:  # what a kill has left in the WAL would come over the copy
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                shutil.copyfile(backup, self.world.db)
            start()
            return True

        self._anew(restore, served=False)

    def copied_over(self, chance: random.Random, process: int) -> None:
        """Have an older copy over the file, or in its place, while it is served."""

        def copy_over() -> bool:
            backup = chance.choice(self.backups)
            with self._standing_still(process) as whole:
                if whole and chance.random() < 0.5:
                    shutil.copyfile(backup, self.world.db)
                elif whole:
                    beside = self.world.db.with_name("beside.db")
                    shutil.copyfile(backup, beside)
                    beside.replace(self.world.db)
            return whole

        self._anew(copy_over, served=True)

    def _anew(self, replace: Callable[[], bool], *, served: bool) -> None:
        """Let nobody write, nor have the file open; then the epoch must be another, and what is there counts."""
        with self.publisher.pen, self.editor.pen, self.world.stillness() as db:
            (before,) = db.execute("SELECT value FROM _appliance_meta WHERE name = 'epoch'").fetchone()
            db.close()
            self.world.close_writers()
            self.world.ending.add(before)
            if served:
                self.world.torn.add(before)
            if not replace():
                return
            self._wait_for_another(before)
            self.world.dead.add(before)
            with closing(self.world.open()) as there:
                if (fault := there.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                    self.world.failures.append(f"what was restored is not sound: {fault}")
                (self.world.written,) = there.execute("SELECT count(*) FROM log").fetchone()
                rows = there.execute("SELECT id, body, n FROM note").fetchall()
            self.editor.rows = {row[0]: row[1:] for row in rows}
            self.editor.doubt.clear()

    def _wait_for_another(self, before: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (epoch := self._asked()) is None or epoch in (before, *self.world.dead):
            self.world.stop.wait(0.05)
            if time.monotonic() > deadline:
                self.world.failures.append(f"the epoch is {epoch} after another file came in the place of {before}")
                self.world.stop.set()
            if self.world.stop.is_set():
                return

    def _asked(self) -> str | None:
        """Ask the server for its epoch."""
        try:
            url = f"ws://127.0.0.1:{self.port()}/live?token={self.key}"
            with connect(url, open_timeout=10, compression=None, close_timeout=1) as connection:
                connection.send(json.dumps({"method": "ping"}))
                return str(json.loads(connection.recv(timeout=10))["EventData"]["epoch"])
        except (OSError, TimeoutError, WebSocketException):
            return None

    @contextmanager
    def _standing_still(self, process: int) -> Iterator[bool]:
        """Stop the server for the block while it writes nothing; whether all is in the file, as after half a minute."""
        whole = False
        for _ in range(50):
            os.kill(process, signal.SIGSTOP)
            with closing(sqlite3.connect(self.world.db, timeout=0, isolation_level=None)) as db:
                try:
                    db.execute("BEGIN IMMEDIATE")
                    db.execute("ROLLBACK")
                    busy, pages, moved = db.execute("PRAGMA wal_checkpoint").fetchone()
                    whole = not busy and pages == moved
                except sqlite3.OperationalError:
                    pass
            if whole or self.world.stop.is_set():
                break
            os.kill(process, signal.SIGCONT)
            self.world.stop.wait(0.05)
        try:
            yield whole
        finally:
            os.kill(process, signal.SIGCONT)
