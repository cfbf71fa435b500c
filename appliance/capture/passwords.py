"""What a trigger does when a user's password, or whose account it is, has changed, whoever wrote it: tokens end.

The password itself is not captured; so this is how a server that runs gets to know.
"""

from __future__ import annotations

from typing import Final

#: When tokens end because of an UPDATE: the account has another password, or another name for tokens to stand for.
CHANGED: Final = "OLD.password COLLATE BINARY IS NOT NEW.password"
RENAMED: Final = "OLD.reference_id COLLATE BINARY IS NOT NEW.reference_id"

#: Tokens that are issued from the next second on are good again (``grants.Standing.not_before``).
_NEXT: Final = "CAST(strftime('%s','now') AS INTEGER)+1"


def end_tokens(subject: str, source: str = "") -> tuple[str, ...]:
    """Give the statements that end the tokens of ``subject``, of each row of ``source``: ``FROM … WHERE …``."""
    there = f"SELECT 1 FROM _appliance_account WHERE subject={subject}"
    rows = f"{subject},{_NEXT} {source} AND" if source else f"{subject},{_NEXT} WHERE"
    return (
        f"UPDATE _appliance_account SET not_before={_NEXT} "
        f"WHERE subject IN (SELECT {subject}{source and ' ' + source}) AND not_before<{_NEXT}",
        f"INSERT INTO _appliance_account(subject,not_before) SELECT {rows} NOT EXISTS({there})",
        "UPDATE _appliance_meta SET value=value+1 WHERE name='generation'",
    )
