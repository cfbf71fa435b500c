"""The standard streams: there may be nobody who reads them, no room for what they take, or no stream at all."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Final

import click

from appliance.errors import CommandError

#: How writing ends where somebody else is to read it, or to make room.
_REFUSALS: Final = frozenset((errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Unprinted(CommandError):
    """What was to be printed could not be. Without words where who read it has gone: nothing is left to say."""

    def __init__(self, error: OSError) -> None:
        gone = isinstance(error, BrokenPipeError)
        super().__init__("" if gone else f"the output cannot be written: {error.strerror}; make room for it")


def is_refusal(error: OSError) -> bool:
    """Whether this is how printing ends, and no fault of ours."""
    return error.errno in _REFUSALS and error.filename is None


def open_closed() -> None:
    """Open those that are closed: nobody reads them, and else the next file that is opened would be in their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 – for as long as the process lives


def tell(words: str) -> None:
    """Tell a person something on stderr; nobody has to read it."""
    with contextlib.suppress(OSError):
        click.echo(f"live-appliance: {words}", err=True)


def settle() -> None:
    """Write what is still to be written, or give it up: it would be tried again at the exit, and change its status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
