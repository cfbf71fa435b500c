"""Items 4, 5 and 6: what one event costs – the server's own processor time – and what capturing costs the writer."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from appliance.capture.outbox import VALUES
from appliance.protocol.permissions import Verb
from appliance.store.tables import standard
from tests.bench.fanout import CREATE, TABLE, writing
from tests.bench.figures import Bench, Figure, median, ratio
from tests.bench.servers import address, ours, subscribe, write_tokens
from tests.bench.tools import Load, cpu_s
from tests.e2e.live import Live, run

#: Values that one subscription's filter names: 5,000 connections, one subscription each, name 100,000.
VALUES_EACH = 20
#: To so many tables each owner of rows has a subscription.
TABLES_EACH = 20
COLUMNS = 8
ROWS = 100  # a transaction
#: What the writer writes.
COLUMNS_SENT = ("seq:text", "t:text", "pad:text", "room:integer")
#: What a writer takes of a shared machine differs by half from one tenth of a second to the next.
TURNS = 4
#: The least that a trigger which tells of a row can do: no test, no REPLACE, nothing but the row itself.
ONE_MORE_ROW = f"""CREATE TRIGGER bound AFTER INSERT ON wide BEGIN
INSERT INTO _appliance_outbox(shape, op, {", ".join(VALUES[:COLUMNS])})
VALUES(1, 1, NEW.id, NEW.a, NEW.b, {", ".join(f"NEW.c{number}" for number in range(COLUMNS - 3))});
END"""


def matching(bench: Bench) -> Iterator[Figure]:
    """Item 4: an event that one of many equality filters matches."""
    preset = bench.preset
    few, many = preset.connections(50), preset.connections(5000)
    with ours(bench.folder, tables=CREATE) as live:
        costs: dict[int, list[float]] = {few: [], many: []}
        for _ in range(preset.runs):
            for n in (few, many):
                costs[n].append(_cost_of_match(live, n, many * VALUES_EACH))
        times = ratio(costs[many], costs[few])
        yield Figure(
            4, f"one of {many * VALUES_EACH:,} filtered values matches", median(costs[many]), "µs/event",
            f"≤ 1.3 × with {few * VALUES_EACH:,}", times <= 1.3, times, {f"{few * VALUES_EACH:,}": median(costs[few])},
        )  # fmt: skip


def owners(bench: Bench) -> Iterator[Figure]:
    """Item 4: an event of a row that only its owner may read, among as many others who own rows."""
    preset = bench.preset
    few, many = preset.connections(50), preset.connections(5000)
    tables = [TABLE, *(f"other{number}" for number in range(1, TABLES_EACH))]
    with ours(bench.folder, tables="".join(CREATE.replace(TABLE, name) for name in tables)) as live:
        for name in tables:
            # The number that the writer gives a row is the name of its owner.
            done = run(
                "table", "grant", name, "--to", "owner", "--can", "read", "--owner-column", "room", "--db", live.db
            )
            assert done.returncode == 0, done.stderr
        tokens = bench.folder / "owners"
        write_tokens(live, many, tokens, "{}")
        requests = tuple(map(subscribe, tables))
        costs: dict[int, list[float]] = {few: [], many: []}
        for _ in range(preset.runs):
            for n in (few, many):
                # As many rows go out at one stroke for few as for many, and as in ``matching``.
                rows, options = many * VALUES_EACH, {"rows": ROWS, "rooms": n, "run": VALUES_EACH}
                costs[n].append(_cost(live, n, requests, rows, options, shared_by=n, tokens=tokens))
        times = ratio(costs[many], costs[few])
        yield Figure(
            4, f"a row that one of {many:,} owners may read, {many * TABLES_EACH:,} subscriptions",
            median(costs[many]), "µs/event", f"≤ 1.3 × with {few * TABLES_EACH:,}", times <= 1.3, times,
            {f"{few * TABLES_EACH:,}": median(costs[few])},
        )  # fmt: skip


def filters(bench: Bench) -> Iterator[Figure]:
    """Item 5: filters that all match, at 1,000 subscribers."""
    preset = bench.preset
    n = preset.connections(1000)
    kinds = {
        "none": "",
        "equality": '{"room":0}',
        "range": '{"room":{"gte":0}}',
        "text": '{"pad":{"startswith":"x"}}',
        "each another list": '{"room":[0,1{i}00000]}',
    }
    with ours(bench.folder, tables=CREATE) as live:
        costs: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(preset.runs):
            for kind, wanted in kinds.items():
                request = subscribe(TABLE, filters=wanted) if wanted else subscribe(TABLE)
                costs[kind].append(_cost(live, n, (request,), preset.amount(5000), {"rows": ROWS}))
        for kind in kinds:
            if kind != "none":
                times = ratio(costs[kind], costs["none"])
                yield Figure(
                    5, f"a filter ({kind}) that matches for all of {n}", median(costs[kind]), "µs/event",
                    "≤ 1.2 × without", times <= 1.2, times, {"without": median(costs["none"])},
                )  # fmt: skip


def permissions(bench: Bench) -> Iterator[Figure]:
    """Item 5: rows of a standard table that all of 1,000 users may read, by the bits of each row or by its group."""
    preset = bench.preset
    n = preset.connections(1000)
    every_list = subscribe("open", filters='{"room":[0,1{i}00000]}')
    with _readable(bench, n) as (live, tokens):
        costs: dict[str, list[float]] = {}
        for _ in range(preset.runs):
            for how, table, request, whose in (
                ("none", "shared", subscribe("shared"), None),
                ("permission", "open", subscribe("open"), tokens),
                ("permission, each with another list of values", "open", every_list, tokens),
                ("group", "shared", subscribe("shared"), tokens),
            ):
                cost = _cost(
                    live, n, (request,), preset.amount(5000), {"rows": ROWS, "update": ROWS}, tokens=whose, table=table,
                )  # fmt: skip
                costs.setdefault(how, []).append(cost)
        for how, found in costs.items():
            if how == "none":
                continue
            times = ratio(found, costs["none"])
            yield Figure(
                5, f"rows that all of {n} may read by the row's {how}", median(found), "µs/event",
                "≤ 1.2 × to administrators", times <= 1.2, times, {"administrators": median(costs["none"])},
            )  # fmt: skip


def behind(bench: Bench) -> Iterator[Figure]:
    """Beside items 5 and 8: all of 1,000 have fallen behind together, as the machine that they are on stood still."""
    preset = bench.preset
    n = preset.connections(1000)
    with _readable(bench, n) as (live, tokens):
        costs: dict[str, list[float]] = {}
        for _ in range(preset.runs):
            for who, whose in (("administrators", None), ("users", tokens)):
                cost = _cost(
                    live, n, (subscribe("open"),), preset.amount(5000), {"rows": ROWS, "update": ROWS, "pad": 800},
                    tokens=whose, table="open", still_s=2,
                )  # fmt: skip
                costs.setdefault(who, []).append(cost / n)
    yield Figure(
        8, f"{n} who fall behind together, rows that all may read by the row's permission", median(costs["users"]),
        "µs/event and subscriber", others={"administrators": median(costs["administrators"])},
    )  # fmt: skip


@contextmanager
def _readable(bench: Bench, n: int) -> Iterator[tuple[Live, Path]]:
    """Serve two standard tables that so many users may read, by the bits of each row or by its group; give tokens."""
    with ours(bench.folder) as live:
        for name in ("open", "shared"):
            done = run("table", "create", name, *COLUMNS_SENT, "--db", live.db)
            assert done.returncode == 0, done.stderr
        with closing(sqlite3.connect(live.db)) as db, db:
            rows = [(number,) for number in range(1, ROWS + 1)]
            db.executemany(f"INSERT INTO open(id, permission) VALUES(?, {int(Verb.PEEK | Verb.READ)})", rows)
            db.executemany("INSERT INTO shared(id) VALUES(?)", rows)
            db.execute(
                f"INSERT INTO {standard.join_table('shared')}(shared_id, usergroup_id) "
                f"SELECT reference_id, '{standard.USERS}' FROM shared"
            )
        tokens = bench.folder / "users"
        write_tokens(live, n, tokens)
        yield live, tokens


def capture(bench: Bench) -> Iterator[Figure]:
    """Item 6: what a writer pays for the triggers, and what of it no trigger could save: one more row.

    By the clock with SQLite's own ``synchronous=FULL``, where a commit waits for the disk; and, which is stricter and
    the same on every disk, in the writer's own processor time with ``NORMAL``, where it does not.

    The parts, ns a row of these tables in a writer of plain C (SQLite 3.40.1, a file in memory, the least of 25 runs):

    ====================================================  ======  ======
    ..                                                     plain  UNIQUE
    ====================================================  ======  ======
    the insert itself                                      1,170   1,740
    a row of the outbox: 8 values, and 16 unused columns     980   1,640
    to look whether it is time to trim                       170     150
    the statement journal                                    410      20
    to ask the values for their length                       320     370
    to look whether a row was displaced                      380     510
    to look whether one may be (BEFORE)                      670   1,040
    ====================================================  ======  ======

    A statement that fires a trigger and may fail has a journal, into which SQLite copies each page that it writes: with
    a constraint that is so without us, else because of ``length``. A program costs 140 ns before it does anything, and
    1.5 ns a register, needed or not; to look at the scratch table or for a row in the way, 160 to 260 ns each.

    Half the speed is out of reach while values are asked for their length and what a REPLACE displaces is told. Nothing
    in SQL tells a length but functions, and those have the journal (in 3.40 and 3.54; not yet in 3.31). And each
    program takes its share, whatever is in it; so much of the speed is left with one more (a writer in Python, medians
    of 60 turns on a busy machine):

    ====================================================  ======  ======
    ..                                                     plain  UNIQUE
    ====================================================  ======  ======
    the copy, with lengths and the journal                  0.56    0.59
    a BEFORE trigger that looks, with hardly a body         0.51    0.51
    an AFTER trigger that looks, with hardly a body         0.47    0.49
    the trim                                                0.45    0.47
    ours, with bodies that take registers, run or not       0.42    0.45
    ====================================================  ======  ======
    """
    preset = bench.preset
    columns = ", ".join(f"c{number} TEXT" for number in range(COLUMNS - 3))
    plain = f"CREATE TABLE wide(id INTEGER PRIMARY KEY, a INTEGER, b REAL, {columns});"
    unique = plain.replace("a INTEGER", "a INTEGER UNIQUE")
    rows = preset.amount(50_000)
    files = {"plain": _watched(bench, plain), "unique": _watched(bench, unique)}
    rates: dict[str, list[float]] = {}
    for _ in range(TURNS * preset.runs):
        for name, db in files.items():
            rates.setdefault(f"{name}, disk", []).append(_rate(db, rows, synchronous="FULL"))
            without = _rate(db, rows, synchronous="FULL", drop="_appliance_%")
            rates.setdefault(f"{name}, disk, without", []).append(without)
            rates.setdefault(f"{name}, without", []).append(_rate(db, rows, drop="_appliance_%"))
            rates.setdefault(f"{name}, no BEFORE", []).append(_rate(db, rows, drop="_appliance_%before%"))
            rates.setdefault(f"{name}, bound", []).append(_rate(db, rows, drop="_appliance_%", add=ONE_MORE_ROW))
            rates.setdefault(name, []).append(_rate(db, rows))
    for name in files:
        kind = "a UNIQUE column" if name == "unique" else "no UNIQUE column"
        on_disk, without = rates[f"{name}, disk"], rates[f"{name}, disk, without"]
        times = ratio(on_disk, without)
        yield Figure(
            6, f"insert, 8 columns, {kind}, {ROWS} a transaction, synchronous=FULL, by the clock", median(on_disk),
            "rows/s", "≥ 0.5 × without triggers", times >= 0.5, times, {"without": median(without)},
        )  # fmt: skip
        without, bound = rates[f"{name}, without"], rates[f"{name}, bound"]
        times = ratio(rates[name], without)
        yield Figure(
            6, f"the same, {kind}, in the writer's processor time alone", median(rates[name]), "rows/s",
            "≥ 0.5 × without triggers", times >= 0.5, times, {"without": median(without), "bound": median(bound)},
        )  # fmt: skip
        yield Figure(
            6, f"the bound of that, {kind}: a trigger that does nothing but insert one row", median(bound), "rows/s",
            "beside: without triggers", None, ratio(bound, without), {"ours by the bound": ratio(rates[name], bound)},
        )  # fmt: skip
        share = [1 - whole / bare for whole, bare in zip(rates[name], rates[f"{name}, no BEFORE"], strict=True)]
        yield Figure(
            6, f"the BEFORE trigger's share of that, {kind}", median(share) * 100, "%", "≤ 15 %", median(share) <= 0.15
        )


def _cost_of_match(live: Live, n: int, rows: int) -> float:
    values = ",".join(f'"{{i}}{number:02}"' for number in range(VALUES_EACH))
    request = subscribe(TABLE, filters=f'{{"room":[{values}]}}')
    return _cost(live, n, (request,), rows, {"rows": ROWS, "rooms": n * VALUES_EACH, "each": VALUES_EACH}, n)


def _cost(
    live: Live,
    n: int,
    requests: Sequence[str],
    rows: int,
    options: dict[str, float],
    shared_by: int = 1,
    tokens: Path | None = None,
    table: str = TABLE,
    still_s: float = 0,
) -> float:
    """Give the server's processor time for one event, µs, while ``n`` subscribers are each sent their share.

    Each is one of the users whose ``tokens`` these are; without, an administrator. For ``still_s`` none of them reads.
    """
    url, who = (address(live), {}) if tokens is None else (address(live, "{token}"), {"tokens": tokens})
    with Load(url, n, requests, expect_setup=len(requests), wait_stdin=True, external=rows // shared_by, **who) as load:
        load.ready()
        before = cpu_s(live.process.pid)
        with writing(live, table, transactions=rows // ROWS, **options):
            load.go()
            load.stand_still(still_s)
            result = load.end()
        spent = cpu_s(live.process.pid) - before
    if result["lost"] or result["first_error"]:
        raise RuntimeError(f"events were lost: {result}")
    return spent / rows * 1e6


def _watched(bench: Bench, create: str) -> Path:
    """Have the server make its triggers on a new file, and stop."""
    with ours(bench.folder, tables=create) as live:
        return live.db


def _rate(source: Path, rows: int, drop: str = "", add: str = "", synchronous: str = "NORMAL") -> float:
    """Insert rows into a copy of the file; give rows a second: of the writer's own processor time, or, where each
    commit waits for the disk, by the clock.

    Triggers LIKE ``drop`` are taken off first, and ``add`` is made.
    """
    now = time.perf_counter if synchronous == "FULL" else time.process_time
    path = source.with_suffix(".copy")
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(path)) as copy:
        original.backup(copy)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={synchronous}")
        found = "SELECT name FROM sqlite_schema WHERE type='trigger' AND tbl_name='wide' AND name LIKE ?"
        for (name,) in db.execute(found, (drop,)).fetchall():
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute(add)
        marks = ",".join("?" * (COLUMNS - 1))
        names = ",".join(["a", "b", *(f"c{number}" for number in range(COLUMNS - 3))])
        insert = f"INSERT INTO wide({names}) VALUES({marks})"
        texts = ["a text of a few words"] * (COLUMNS - 3)
        begun = now()
        for first in range(0, rows, ROWS):
            db.execute("BEGIN IMMEDIATE")
            for number in range(first, first + ROWS):
                db.execute(insert, (number, number + 0.5, *texts))
            db.execute("COMMIT")
        return rows / (now() - begun)
