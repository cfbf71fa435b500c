"""Log lines: on stderr, structured, a constant event name and fields. Never a token, never row data."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(format: str, level: str) -> None:  # noqa: A002
    """Set up all logging of the process. ``format``: ``text`` or ``json``; ``level``: a name of ``logging``."""
    renderer: structlog.typing.Processor
    if format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries speak through logging; what they have to say of a connection, the door says already.
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
