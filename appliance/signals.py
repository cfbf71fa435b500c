"""What the process is told by signals: to stop, to stop at once, to read its configuration again."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any, Final, TypeAlias

import structlog
import trio

from appliance.config import Config, settings
from appliance.errors import BadConfiguration
from appliance.ops.notify import ServiceManager

log = structlog.get_logger()

#: The one-file program is two processes, and the first hands on to the second what it is sent. So Ctrl-C, or a service
#: manager that signals them all, comes to us twice: within so many seconds it is the same signal.
DOUBLED_S: Final = 0.25 if getattr(sys, "frozen", False) else 0.0

#: A part of the server that a new configuration can change while it runs. It is called twice: what it is given reads
#: and checks, and raises ``BadConfiguration``; what that returns changes the part, and cannot fail.
Part: TypeAlias = Callable[[Config], Callable[[], None]]


class Reload:
    """The configuration, and how it is read again: all parts of the server change, or none.

    ``read`` gives what flags, variables and the file say now, and raises ``BadConfiguration``.
    """

    def __init__(self, config: Config, read: Callable[[], Config]) -> None:
        #: What is in force.
        self.config = config
        self._said = config
        self._read = read
        self._parts: list[Part] = []
        self._due = False

    @property
    def waits(self) -> bool:
        """Whether there is nothing yet that could change: the server begins, or begins anew."""
        return not self._parts

    def later(self) -> None:
        """Read the configuration again once the server has begun, as it may have read a part of it before."""
        self._due = True

    @contextlib.contextmanager
    def concerning(self, part: Part) -> Iterator[None]:
        """Have a part of the server follow the configuration for as long as the block runs."""
        self._parts.append(part)
        try:
            if self._due:
                self._due = False
                self()
            yield
        finally:
            self._parts.remove(part)

    def fix(self, **values: Any) -> None:
        """Keep what was found out at the start, such as the port, whatever the configuration says."""
        self.config = replace(self.config, **values)

    def __call__(self) -> None:
        """Read the configuration again, and the files that it names. What is wrong is logged, and changes nothing."""
        try:
            said = self._read()
            changed = {each.name: getattr(said, each.name) for each in settings()
                       if getattr(said, each.name) != getattr(self._said, each.name)}  # fmt: skip
            live = {each.name for each in settings() if each.metadata["live"]}
            config = replace(self.config, **{name: changed[name] for name in changed.keys() & live})
            changes = [part(config) for part in self._parts]
        except BadConfiguration as error:
            log.error("not_reloaded", reason=str(error))
            return
        for change in changes:
            change()
        self.config = config
        self._said = said
        log.info("reloaded", settings=sorted(changed.keys() & live))
        if waiting := sorted(changed.keys() - live):
            log.warning("restart_needed", settings=waiting)


async def obey(signals: AsyncIterator[int], stop: trio.Event, reload: Reload, manager: ServiceManager) -> None:
    """Do as the signals say: SIGHUP reloads, any other sets ``stop``, and the next ends the process at once."""
    first = 0.0
    async for number in signals:
        if number == signal.SIGHUP and reload.waits:
            reload.later()  # and the manager is not told that a server is ready which is not
        elif number == signal.SIGHUP:
            manager.reloading()
            reload()
            manager.ready()
        elif not stop.is_set():
            log.info("stopping", signal=signal.Signals(number).name)
            manager.stopping()
            first = trio.current_time()
            stop.set()
        elif trio.current_time() - first >= DOUBLED_S:
            os._exit(128 + number)  # SQLite survives this: whatever was not committed was not acknowledged
