"""The command line: every command, one module a group, and the exit status of whatever goes wrong."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Final

import click

from appliance import logs
from appliance.cli import output
from appliance.errors import ApplianceError, CommandError, first_of
from appliance.ops import unpacked


def main() -> None:
    """Run the command line and exit."""
    output.open_closed()
    try:
        sys.exit(_run())
    finally:
        output.settle()


def _run() -> int:
    """Run the command line; give the exit status."""
    unpacked.tidy()
    try:
        status = commands.main(standalone_mode=False, prog_name="live-appliance")
        return status if isinstance(status, int) else 0
    except click.exceptions.Abort:
        return 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        help_for = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "live-appliance"
        output.tell(f"{error.format_message()} (see {help_for} --help)")
        return error.exit_code
    except ApplianceError as error:
        return _complain(error)
    except UnicodeEncodeError:
        return _complain(CommandError("an argument holds bytes that are not UTF-8; write it in UTF-8"))
    except OSError as error:
        if error.filename is not None:
            return _complain(CommandError(f"{error.filename}: {error.strerror}; name another, or see to it that this "
                                          "user may use it"))  # fmt: skip
        if not output.is_refusal(error):
            raise
        return _complain(output.Unprinted(error))
    except BaseExceptionGroup as group:
        own, rest = group.split(ApplianceError)
        if own is None or rest is not None:
            raise
        return _complain(first_of(own))


def _complain(error: BaseException) -> int:
    if str(error):
        output.tell(str(error))
    return error.exit_status if isinstance(error, CommandError) else 1


#: Every command: the module that has it, and what it is called there.
_COMMANDS: Final = {
    "serve": ("serving", "serve_command"),
    "user": ("users", "user"),
    "group": ("users", "group"),
    "token": ("tokens", "token"),
    "table": ("tables", "table"),
    "migrate": ("migrating", "migrate_command"),
    "topic": ("topics", "topic"),
    "tail": ("clients", "tail_command"),
    "publish": ("clients", "publish_command"),
    "history": ("history", "history_command"),
    "backup": ("backups", "backup_command"),
    "restore": ("backups", "restore_command"),
    "check": ("program", "check_command"),
    "service": ("service", "service"),
    "version": ("program", "version_command"),
}


class _Commands(click.Group):
    """The commands, each imported when it is asked for: half of the start is importing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        # Modules are no garbage: not looking for any among them saves a tenth of the start, and a pause later on.
        gc.disable()
        try:
            found = getattr(importlib.import_module(f"appliance.cli.{module}"), name)
        finally:
            gc.freeze()
            gc.enable()
        assert isinstance(found, click.Command)  # noqa: S101 – the table above says so
        return found


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the versions, as the command does, where ``--version`` asks for them."""
    command = commands.get_command(ctx, "version")
    if wanted and command is not None:
        ctx.invoke(command)
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print what version prints."
)
def commands() -> None:
    """Turn a SQLite file into a realtime backend.

    Every committed change of every table reaches WebSocket subscribers, whoever wrote it.

    \b
    To see it:             live-appliance serve --db shop.db
    To leave it running:   live-appliance service install
    """
    # What a command changes is told on stderr, as the server tells what it does; serve sets this anew.
    logs.configure("json" if os.environ.get("LIVE_APPLIANCE_LOG_FORMAT") == "json" else "text", "info")
