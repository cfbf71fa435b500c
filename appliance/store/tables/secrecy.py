"""Which columns hold secrets, by the rules of the configuration."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from appliance.errors import BadConfiguration
from appliance.model import ascii_fold
from appliance.store.file import schema

#: What of our own tables is secret, whatever patterns are configured.
ALWAYS = ("user_account.password",)

#: The setting that holds the rules by which the file was last served.
_RULES: Final = "secrecy"
_NAMED: Final = """SELECT 1 FROM main.sqlite_schema AS made, pragma_table_xinfo(made.name) AS own
WHERE made.type = 'table' AND made.name || '.' || own.name = ? COLLATE NOCASE"""


class Secrecy:
    """Decides for each column whether it may be captured.

    ``columns`` are names and patterns for every table, or ``table.column``; ``reveal`` is ``table.column`` only. All
    compare without ASCII case. A column of the primary key is secret only by ``table.column``: without its
    key a row's events could not be told apart, so a mere pattern does not take it away.
    """

    def __init__(self, columns: Sequence[str], reveal: Sequence[str]) -> None:
        self._rules = (tuple(columns), tuple(reveal))
        self._patterns = [ascii_fold(each) for each in columns if "." not in each]
        self._named = frozenset(ascii_fold(each) for each in (*ALWAYS, *columns) if "." in each)
        self._revealed = frozenset(ascii_fold(each) for each in reveal)
        for each in reveal:
            if "." not in each:
                raise BadConfiguration(f'--reveal takes table.column, not "{each}"')

    def dump(self) -> str:
        """Write the rules down, for a command that knows the configuration of the server only by the store."""
        return json.dumps({"columns": self._rules[0], "reveal": self._rules[1]}, ensure_ascii=False)

    @classmethod
    def load(cls, text: str) -> Secrecy:
        """Read what ``dump`` wrote."""
        found = json.loads(text)
        return cls(found["columns"], found["reveal"])

    def idle(self, db: sqlite3.Connection) -> list[str]:
        """Give the rules for one column, ``table.column``, that name none in the file: slips, or of tables to come."""
        rules = dict.fromkeys(each for each in (*self._rules[0], *self._rules[1]) if "." in each)
        return [each for each in rules if db.execute(_NAMED, (each,)).fetchone() is None]

    def __call__(self, table: str, column: str, key: bool = False) -> bool:
        """Whether the column's values must stay in the file. ``key``: it belongs to the primary key."""
        full, name = ascii_fold(f"{table}.{column}"), ascii_fold(column)
        if full in self._revealed:
            return False
        if full in self._named:
            return True
        return not key and any(fnmatchcase(name, pattern) for pattern in self._patterns)


def remember(db: sqlite3.Connection, secrecy: Secrecy) -> None:
    """Note the rules by which the file is served, for ``remembered``."""
    schema.remember(db, _RULES, secrecy.dump())


def remembered(db: sqlite3.Connection) -> Secrecy | None:
    """Give the rules by which the file was last served; ``None`` if it never was."""
    rules = schema.get(db, _RULES)
    return Secrecy.load(rules) if isinstance(rules, str) else None
