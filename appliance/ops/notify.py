"""Word to the service manager that has started us: systemd's notifications, through a datagram socket.

Where no service manager waits for word (``NOTIFY_SOCKET`` is not set), nothing is said and nothing is sent.
The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog
import trio

from appliance.live.beat import next_beat
from appliance.live.tail.state import TailState

log = structlog.get_logger()

#: How often the status is told anew where the watchdog does not ask for more, seconds.
STATUS_EVERY_S: Final = 5.0
#: The watchdog is fed so many times in its interval; systemd asks for two at least.
FEEDS: Final = 3


class ServiceManager:
    """Whoever waits to hear how the server is; says nothing where nobody does. Never raises, never waits."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = watchdog_s(environment)
        self._reachable = True

    @property
    def waits(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._address)

    def ready(self) -> None:
        """Tell that clients are served, for the first time or after ``reloading``."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Tell that the configuration is read again; ``ready`` ends that."""
        # The time lets the manager tell which request to reload was obeyed (Type=notify-reload, systemd 253).
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Tell that the server has begun to stop."""
        self._tell("STOPPING=1", "STATUS=stopping")

    async def keep_told(self, tail: TailState, status: Callable[[], str]) -> None:
        """Keep the status told, and feed the watchdog for as long as the tail moves.

        A tail that cannot read the store and tries again does move: another process would not fare better. One that
        neither reads nor tries is stuck, and so is whatever keeps this task from running; then no word comes, and the
        service manager starts the program anew.
        """
        if not self.waits:
            return
        every_s = min(STATUS_EVERY_S, self._watchdog_s / FEEDS) if self._watchdog_s else STATUS_EVERY_S
        told, seen = "", (0.0, 0.0)
        while True:
            moved = (tail.last_turn, tail.last_look)
            if self._watchdog_s and moved != seen:
                self._tell("WATCHDOG=1")
            seen = moved
            if (now := status()) != told:
                self._tell(f"STATUS={now}")
                told = now
            await trio.sleep_until(next_beat(every_s))

    def _tell(self, *lines: str) -> None:
        if not self.waits:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as word:
                word.sendto("\n".join(line.replace("\n", " ") for line in lines).encode(), self._address)
            self._reachable = True
        except OSError as error:
            if self._reachable:
                log.warning("not_notified", reason=f"NOTIFY_SOCKET: {error}")
            self._reachable = False


def watchdog_s(environment: Mapping[str, str]) -> float:
    """Give the interval of the service manager's watchdog, seconds; 0 where it does not watch this process.

    ``WATCHDOG_PID`` names the process that the manager has started; that of the one-file program is our parent.
    """
    interval, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not interval.isdecimal() or (process and process not in (str(os.getpid()), str(os.getppid()))):
        return 0.0
    return int(interval) / 1e6
