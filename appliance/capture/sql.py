"""As much of a tokenizer as reading other people's DDL takes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from appliance.model import ascii_fold

# SQLite's space is ASCII: U+00A0 is part of a name.
_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\f\r]+|--[^\n]*\n?|/\*.*?(?:\*/|\Z))
      | (?P<quoted>'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\])
      | (?P<word>[A-Za-z_\x80-\U0010ffff$0-9]+)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)


_QUOTES: Final = "\"`'["
_NAME_QUOTES: Final = '"`['
#: Words that are values.
_CONSTANTS: Final = frozenset(("CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "FALSE", "TRUE"))
#: What may stand before a parenthesis and is no function.
_BEFORE_PARENTHESIS: Final = frozenset(
    ("AND", "AS", "BETWEEN", "CASE", "CAST", "COLLATE", "DISTINCT", "ELSE", "ESCAPE", "EXISTS", "FROM", "IN", "IS",
     "ISNULL", "NOT", "NOTNULL", "NULL", "ON", "OR", "SELECT", "THEN", "VALUES", "WHEN", "WHERE")
)  # fmt: skip
#: Operators that are functions: an application can replace them.
_OPERATOR_FUNCTIONS: Final = frozenset(("GLOB", "LIKE", "MATCH", "REGEXP"))


class Token(NamedTuple):
    """One token of SQL, where it begins and ends, and how many parentheses are open round it."""

    text: str
    start: int
    end: int
    depth: int

    @property
    def keyword(self) -> str:
        """The token in upper case; a quoted name is no keyword."""
        return self.text.upper()

    @property
    def is_word(self) -> bool:
        """Whether it is a name, a keyword or a number."""
        return self.text[0].isalnum() or self.text[0] in "_$" or self.text[0] >= "\x80"

    @property
    def name(self) -> str:
        """The name that the token stands for, without its quotes."""
        first = self.text[0]
        if first == "[":
            return self.text[1:-1]
        if first in "\"`'":
            return self.text[1:-1].replace(first * 2, first)
        return self.text


def tokens(sql: str) -> Iterator[Token]:
    """Split SQL into its tokens; space and comments are left out. A parenthesis has the depth outside of it."""
    depth = 0
    for match in _TOKEN.finditer(sql):
        if match.lastgroup == "space":
            continue
        text = match.group()
        if text == ")":
            depth -= 1
        yield Token(text, match.start(), match.end(), depth)
        if text == "(":
            depth += 1


def index_predicate(create_index: str, columns: Collection[str]) -> str | None:
    """Give the WHERE expression of a CREATE INDEX statement; ``None`` when it has none.

    It is given so that it can stand in a trigger: on one line and without comments, and with ``"…"`` that is no column
    (SQLite then takes it for a string) as ``'…'``: a writer may have double-quoted strings turned off, as the
    ``sqlite3`` shell has since 3.41, and then reads them in the schema but not in a trigger's body.
    """
    known = {ascii_fold(column) for column in columns}
    found: list[str] | None = None
    before = Token("", 0, 0, 0)
    rest = [*tokens(create_index), before]
    for token, after in pairwise(rest):
        if found is not None and not (token.text == ";" and token.depth == 0):
            name = before.text == "." or after.text in (".", "(") or before.keyword == "COLLATE"
            string = token.text[0] == '"' and not name and ascii_fold(token.name) not in known
            # Tokens that touch may be one: ``>`` and ``=``, ``x`` and ``'00'``.
            space = " " if found and token.start > before.end else ""
            found.append(space + (_literal(token.name) if string else token.text))
        elif found is None and token.depth == 0 and token.keyword == "WHERE":
            found = []
        before = token
    return None if found is None else "".join(found)


def constant(default: str) -> str | None:
    """Give the DEFAULT of a column so that it can stand in a trigger, as ``index_predicate`` does; ``None``: NULL.

    A mere name is a string there, with or without quotes.
    """
    found = list(tokens(default))
    if len(found) == 1:
        (token,) = found
        if token.keyword == "NULL":
            return None
        if token.is_word and not token.text[0].isdecimal() and token.keyword not in _CONSTANTS:
            return _literal(token.name)
    written, end = "", 0
    for token in found:
        written += " " if token.start > end else ""
        written += _literal(token.name) if token.text[0] in _NAME_QUOTES else token.text
        end = token.end
    return written


def functions(expression: str) -> set[str]:
    """Name, in lower case, all that an expression may call."""
    called = set()
    for token, after in pairwise(tokens(expression)):
        if (
            after.text == "("
            and token.keyword not in _BEFORE_PARENTHESIS
            and (token.text[0] in _QUOTES or token.is_word)
        ):
            called.add(token.name.lower())
        if token.keyword in _OPERATOR_FUNCTIONS:
            called.add(token.keyword.lower())
    return called


def virtual_module(create_virtual_table: str) -> str | None:
    """Name the module of a CREATE VIRTUAL TABLE statement."""
    for token, after in pairwise(tokens(create_virtual_table)):
        if token.keyword == "USING":
            return after.name
    return None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def column_collations(create_table: str) -> dict[str, str]:
    """Give the collation of each column that declares one, by the column's name, of a CREATE TABLE statement."""
    found: dict[str, str] = {}
    column: str | None = None
    begins = False
    collates = False
    for token in tokens(create_table):
        if token.depth == 0:
            if token.text == "(":
                begins = True
            elif token.text == ")":
                break
        elif token.depth == 1:
            if token.text == ",":
                begins = True
            elif begins:
                column, begins, collates = token.name, False, False
            elif collates and column is not None:
                found[column] = token.name  # the last one counts
                collates = False
            else:
                collates = token.keyword == "COLLATE"
    return found


def resolves_conflicts(create_table: str) -> bool:
    """Whether a CREATE TABLE statement says ON CONFLICT: what becomes of a row that a constraint refuses."""
    if "CONFLICT" not in create_table.upper():  # hardly any does, and every table is asked at each look at the schema
        return False
    words = [token.keyword for token in tokens(create_table)]
    return any(pair == ("ON", "CONFLICT") for pair in pairwise(words))


def fires_before_a_write(create_trigger: str) -> bool:
    """Whether a CREATE TRIGGER statement is of a BEFORE INSERT or BEFORE UPDATE trigger; BEFORE is the default."""
    words = [token.keyword for token in tokens(create_trigger)]
    place = words.index("TRIGGER") + 1
    if words[place : place + 3] == ["IF", "NOT", "EXISTS"]:
        place += 3
    place += 3 if words[place + 1] == "." else 1
    if words[place] in ("AFTER", "INSTEAD"):
        return False
    return words[place + (words[place] == "BEFORE")] in ("INSERT", "UPDATE")
