"""Which rights some events may have changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from appliance.live.matching.facts import names_in
from appliance.live.matching.telling import Told
from appliance.model import Change, Op, Principal, ascii_fold
from appliance.store.tables import standard

#: Tables (folded) whose rows say who has an account and is in which group, and what is granted on tables.
_WHO: Final = frozenset((standard.USER_ACCOUNT, standard.join_table(standard.USER_ACCOUNT)))
_WHAT: Final = frozenset((standard.WORLD, standard.join_table(standard.WORLD), standard.USERGROUP))
RIGHTS: Final = _WHO | _WHAT


@dataclass(frozen=True, slots=True)
class Stale:
    """Which rights are to be read anew: of these subjects, or of everybody (``None``); ``tables``: what is granted.

    ``named``: of those whose groups their tokens name, by names that may be others' now.
    """

    subjects: frozenset[str] | None = frozenset()
    tables: bool = False
    named: bool = False

    def __bool__(self) -> bool:
        return self.subjects is None or bool(self.subjects) or self.tables

    def concerns(self, principal: Principal) -> bool:
        """Whether a principal's own rights are among these."""
        return self.subjects is None or principal.subject in self.subjects or (self.named and bool(principal.groups))


EVERYTHING: Final = Stale(None, tables=True)
_NOTHING: Final = Stale()


def stale(events: Iterable[Told]) -> Stale:
    """Say which rights these events may have changed."""
    concerned = [told for told in events if told.topic in RIGHTS]
    if not concerned:
        return _NOTHING
    subjects: set[str] = set()
    tables = named = everybody = False
    for told in concerned:
        if told.topic in _WHAT:
            tables = True
            if told.topic == standard.USERGROUP and isinstance(told.event, Change):
                named = True
                everybody |= told.event.op is not Op.UPDATE or len(names_in(told.event, "reference_id")) > 1
        elif told.topic in _WHO and isinstance(told.event, Change):
            whom = _subjects(told.event)
            everybody |= whom is None
            subjects |= whom or set()
    return Stale(None if everybody else frozenset(subjects), tables, named)


def _subjects(change: Change) -> set[str] | None:
    """Name those whom a change of an account or a membership concerns; ``None`` where that is declared a secret."""
    column = "reference_id" if ascii_fold(change.shape.table) == standard.USER_ACCOUNT else "user_account_id"
    return names_in(change, column) if column in change.shape.places else None
