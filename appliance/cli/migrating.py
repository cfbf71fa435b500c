"""``migrate``: a command of the user's that changes the schema, run while our triggers are off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import click

from appliance.cli.options import db_option
from appliance.cli.output import tell
from appliance.store import offline

#: What a shell gives for a command that is not there, and for one that cannot be run.
NOT_FOUND: Final = 127
NOT_RUNNABLE: Final = 126


@click.command("migrate", context_settings={"allow_interspersed_args": False})
@db_option
@click.argument("command", nargs=-1, required=True, metavar="COMMAND")
def migrate_command(db: Path, command: tuple[str, ...]) -> int:
    """Run COMMAND, a migration, with our triggers taken off.

    It may change the schema as it likes. They are put back when it ends, however it ends, and its exit status is passed
    on. What it writes is not captured: subscribers get a resync. In its environment LIVE_APPLIANCE_DB names the file.
    Write -- before COMMAND.
    """
    with offline.migrating(db) as uncaptured:
        status = _run(command, db)
    for each in uncaptured:
        tell(f"not captured any more: {each}")
    return status


def _run(command: Sequence[str], db: Path) -> int:
    """Run a command to its end; give its status as a shell would, and hand on to it what would end us."""
    sys.stdout.flush()
    child: subprocess.Popen[bytes] | None = None
    asked: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        # Ctrl-C comes to the whole group of processes, so the child has it already.
        if child is not None and number != signal.SIGINT:
            child.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        child = subprocess.Popen(command, env={**os.environ, "LIVE_APPLIANCE_DB": str(db.resolve())})  # noqa: S603
        for number in asked:
            child.send_signal(number)
        status = child.wait()
    except OSError as error:
        tell(f"{command[0]} cannot be run: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status
