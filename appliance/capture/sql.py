"""As much of a tokenizer as reading other people's DDL takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*\n?|/\*.*?(?:\*/|\Z))
      | (?P<quoted>'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\])
      | (?P<word>[A-Za-z_\x80-\U0010ffff$0-9]+)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)


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


def index_predicate(create_index: str) -> str | None:
    """Give the WHERE expression of a CREATE INDEX statement; ``None`` when it has none."""
    for token in tokens(create_index):
        if token.depth == 0 and token.keyword == "WHERE":
            return create_index[token.end :].strip().rstrip(";").strip()
    return None


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
                found.setdefault(column, token.name)
                collates = False
            else:
                collates = token.keyword == "COLLATE"
    return found
