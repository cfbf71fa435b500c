"""Another program that writes the file: ``python -m tests.bench.writer DB TABLE --transactions 100 --rows 100``.

Each row has ``seq`` (S:number), ``t`` (T:nanoseconds of ``CLOCK_MONOTONIC``, read right before its INSERT), a ``pad``,
and a ``room``: the first ``--each`` of each hundred in turn, ``--rooms`` of them, each for ``--run`` rows. At its end
it prints the median time in milliseconds from there to the COMMIT, what of a latency is the writer's own work; 0 where
an INSERT is all. With ``--update`` it changes the rows with ids from 1 to that number in turn, and makes none.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("db")
    parser.add_argument("table")
    parser.add_argument("--transactions", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="transactions a second; 0: as fast as it goes")
    parser.add_argument("--pad", type=int, default=20)
    parser.add_argument("--rooms", type=int, default=1)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--run", type=int, default=1)
    parser.add_argument("--update", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    db = sqlite3.connect(asked.db, isolation_level=None, timeout=30)
    db.execute("PRAGMA synchronous=NORMAL")
    write = f"INSERT INTO {asked.table}(seq, t, pad, room) VALUES(?, ?, ?, ?)"
    if asked.update:
        write = f"UPDATE {asked.table} SET seq=?, t=?, pad=?, room=? WHERE id=?"
    pad = "x" * asked.pad
    number = asked.first
    # A statement that is a transaction by itself is quicker, but says nothing of when its COMMIT begins.
    explicit = asked.rows > 1 or asked.rate > 0
    before_commit_ns: list[int] = []
    begun = time.monotonic()
    for transaction in range(asked.transactions):
        if asked.rate:
            time.sleep(max(0.0, begun + transaction / asked.rate - time.monotonic()))
        if explicit:
            db.execute("BEGIN IMMEDIATE")
        first_ns = time.monotonic_ns()
        for _ in range(asked.rows):
            hundred, place = divmod(number // asked.run % asked.rooms, asked.each)
            values = (f"S:{number:010}", f"T:{time.monotonic_ns():019}", pad, 100 * hundred + place)
            db.execute(write, (*values, 1 + number % asked.update) if asked.update else values)
            number += 1
        if explicit:
            before_commit_ns.append(time.monotonic_ns() - first_ns)
            db.execute("COMMIT")
    db.close()
    print(statistics.median(before_commit_ns) / 1e6 if explicit else 0.0)


if __name__ == "__main__":
    main()
