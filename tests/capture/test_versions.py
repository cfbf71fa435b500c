"""The oldest SQLite that a writer may have, and the newest: the whole of ``writes.sql`` under each.

The amalgamations come from better-sqlite3's npm packages, pinned by hash; they are compiled as the shared library that
Python's own ``sqlite3`` then loads instead of the system's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from appliance.store.file import schema
from appliance.store.tables import making, standard
from appliance.store.tables.standard import USERS, join_table
from tests.capture.support import TABLES, WRITES, Captured, check_replay
from tests.store.tables.test_standard import UUID4

#: SQLite's version: better-sqlite3's, its tarball's SHA-256, and where in it the amalgamation is (or an archive of it).
AMALGAMATIONS = {
    "3.31.1": (
        "7.0.0",
        "47e9b65aa697626114d7e2f0d8a1e9423a41fcf16ee07dbf742195109dd5cf87",
        "package/deps/sqlite3.tar.gz",
    ),
    "3.54.1": (
        "13.2.0",
        "40487589df3496f2ee0079d22b73c63fccebe7db0e8ee9a2c42421861e321e0b",
        "package/deps/sqlite3/sqlite3.c",
    ),
}

WRITER = """
import sqlite3, sys
if sqlite3.sqlite_version != sys.argv[1]:
    sys.exit("this Python brings its own SQLite: " + sqlite3.sqlite_version)
db = sqlite3.connect(sys.argv[2], isolation_level=None)
for pragma in sys.argv[4:]:
    db.execute("PRAGMA " + pragma)
db.executescript(open(sys.argv[3]).read())
"""


@pytest.fixture(scope="module", params=AMALGAMATIONS)
def sqlite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Give a version of SQLite and the directory of its library."""
    version, sha256, member = AMALGAMATIONS[request.param]
    for tool in ("npm", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here, so that SQLite {request.param} cannot be built")
    folder = tmp_path_factory.mktemp("sqlite")
    packed = subprocess.run(
        ["npm", "pack", f"better-sqlite3@{version}"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    if packed.returncode:
        pytest.skip(f"npm could not fetch better-sqlite3 {version}")
    archive = folder / f"better-sqlite3-{version}.tgz"
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == sha256
    with tarfile.open(archive) as tar:
        source = tar.extractfile(member)
        assert source is not None
        if member.endswith(".gz"):
            with tarfile.open(fileobj=source) as inner:
                source = inner.extractfile("sqlite3.c")
                assert source is not None
                (folder / "sqlite3.c").write_bytes(source.read())
        else:
            (folder / "sqlite3.c").write_bytes(source.read())
    flags = ["-DSQLITE_ENABLE_DESERIALIZE", "-DSQLITE_ENABLE_COLUMN_METADATA", "-w", "-O1", "-shared", "-fPIC"]
    subprocess.run(
        ["gcc", *flags, "sqlite3.c", "-o", "libsqlite3.so.0", "-lpthread", "-ldl", "-lm"],
        cwd=folder, check=True, timeout=300,
    )  # fmt: skip
    return request.param, folder


def write(library: Path, version: str, db: Path, sql: Path, *pragmas: str) -> None:
    """Have a writer with another SQLite run a file of SQL; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, version, str(db), str(sql), *pragmas],
        env={**os.environ, "LD_LIBRARY_PATH": str(library)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if "brings its own SQLite" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.heavy
@pytest.mark.parametrize("pragma", ["recursive_triggers=OFF", "recursive_triggers=ON", "trusted_schema=OFF"])
def test_all_that_another_sqlite_writes_is_captured(tmp_path: Path, sqlite: tuple[str, Path], pragma: str) -> None:
    version, library = sqlite
    file = Captured(tmp_path / "a.db", TABLES)
    write(library, version, file.path, WRITES, pragma)
    assert check_replay(file) > 50
    file.close()


#: The outbox of a standard table: its defaults are evaluated, and its groups noted, in the writer's SQLite.
STANDARD = f"""
INSERT INTO todo(title) VALUES('one');
INSERT INTO todo(reference_id, title) VALUES('two', 'two');
INSERT INTO {join_table("todo")}(todo_id, usergroup_id) VALUES('two', '{USERS}');
REPLACE INTO todo(reference_id, title) VALUES('two', '2');
INSERT INTO {join_table("todo")}(todo_id, usergroup_id) VALUES('two', '{USERS}') ON CONFLICT DO NOTHING;
DELETE FROM todo;
"""


@pytest.mark.heavy
@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
def test_a_standard_table_is_written_whole_by_another_sqlite(
    tmp_path: Path, sqlite: tuple[str, Path], foreign_keys: str
) -> None:
    version, library = sqlite
    file = Captured(tmp_path / "a.db")
    standard.prepare(file.server)
    with schema.transaction(file.server):
        making.create(file.server, "todo", [making.NewColumn("title", "text")])
    file.synchronise()
    file.events()
    statements = tmp_path / "standard.sql"
    statements.write_text(STANDARD)
    write(library, version, file.path, statements, f"foreign_keys={foreign_keys}", "trusted_schema=OFF")
    events = [event for event in file.events() if event.shape.table == "todo"]
    assert [event.op.name for event in events] == ["CREATE", "CREATE", "UPDATE", "DELETE", "DELETE"]
    assert UUID4.fullmatch(str(events[0].new and events[0].new.values[0]))
    assert [event.joins for event in events[3:]] == [(), ((USERS, 2097057),)]
    file.close()
