"""What of ours goes out of the file again, and what stays because somebody has put something into it."""

from __future__ import annotations

import sqlite3

from appliance.model import quote_identifier
from appliance.store.tables import standard
from appliance.store.tables.standard import Kind


def remove_unused(db: sqlite3.Connection) -> list[str]:
    """Take the system tables out again, inside a transaction, if nobody has put anything into them.

    Gives the tables of rights that stay, each before those that it refers to: they, and the join tables of others.
    """
    there = standard.registered(db).values()
    if not _is_used(db, len(there)):
        for table in reversed(standard.SYSTEM_TABLES):
            db.execute(f"DROP TABLE {quote_identifier(table)}")
        return []
    joins = [each.table for each in there if each.kind in (Kind.JOIN, Kind.MEMBERSHIP)]
    return [*joins, *(each.table for each in there if each.table not in joins and standard.is_system(each.table))]


def _is_used(db: sqlite3.Connection, tables: int) -> bool:
    """Whether there is more than what a start makes, or less."""
    if not standard.is_prepared(db) or tables > len(standard.SYSTEM_TABLES):
        return True
    for table in (standard.USER_ACCOUNT, standard.USERGROUP):
        built_in = ",".join("?" * len(standard.BUILT_IN))
        sql = f"SELECT 1 FROM {table} WHERE reference_id NOT IN ({built_in})"
        if db.execute(sql, tuple(standard.BUILT_IN)).fetchone() is not None:
            return True
    return False
