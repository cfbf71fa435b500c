"""Another program that writes the file: ``python -m tests.bench.writer DB TABLE --transactions 100 --rows 100``.

Each row has ``seq`` (S:number), ``t`` (T:nanoseconds of ``CLOCK_MONOTONIC``, read right before its INSERT), a ``pad``,
and a ``room``: the first ``--each`` of each hundred in turn, ``--rooms`` of them.
"""

from __future__ import annotations

import argparse
import sqlite3
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
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    db = sqlite3.connect(asked.db, isolation_level=None, timeout=30)
    db.execute("PRAGMA synchronous=NORMAL")
    insert = f"INSERT INTO {asked.table}(seq, t, pad, room) VALUES(?, ?, ?, ?)"
    pad = "x" * asked.pad
    number = asked.first
    begun = time.monotonic()
    for transaction in range(asked.transactions):
        if asked.rate:
            time.sleep(max(0.0, begun + transaction / asked.rate - time.monotonic()))
        if asked.rows > 1:
            db.execute("BEGIN IMMEDIATE")
        for _ in range(asked.rows):
            hundred, place = divmod(number % asked.rooms, asked.each)
            values = (f"S:{number:010}", f"T:{time.monotonic_ns():019}", pad, 100 * hundred + place)
            db.execute(insert, values)
            number += 1
        if asked.rows > 1:
            db.execute("COMMIT")
    db.close()


if __name__ == "__main__":
    main()
