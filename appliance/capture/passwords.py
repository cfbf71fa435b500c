"""What a trigger does when a user's password has changed, whoever wrote it: the tokens of before end.

The password itself is not captured; so this is how a server that runs gets to know.
"""

from __future__ import annotations

from typing import Final

CHANGED: Final = "OLD.password COLLATE BINARY IS NOT NEW.password"

#: Tokens that are issued from the next second on are good again (``grants.Standing.not_before``).
_NEXT: Final = "CAST(strftime('%s','now') AS INTEGER)+1"

END_TOKENS: Final = (
    f"UPDATE _appliance_account SET not_before={_NEXT} WHERE subject=NEW.reference_id AND not_before<{_NEXT}",
    f"INSERT INTO _appliance_account(subject,not_before) SELECT NEW.reference_id,{_NEXT} "
    "WHERE NOT EXISTS(SELECT 1 FROM _appliance_account WHERE subject=NEW.reference_id)",
    "UPDATE _appliance_meta SET value=value+1 WHERE name='generation'",
)
