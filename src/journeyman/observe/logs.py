"""Logging set-up for the program, and the filter that keeps secrets and control characters out of every log line.

Library code only does `logging.getLogger(__name__)`; nothing here runs at import. A program calls `set_up_logging`
once.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from journeyman.redaction import printable, redact


class RedactingFormatter(logging.Formatter):
    """Formats as usual, then hides secrets and writes out what would steer a terminal: in message, arguments and traceback alike."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(redact(super().format(record)))


def set_up_logging(level: int = logging.WARNING, stream: TextIO | None = None) -> None:
    """Send the `journeyman` loggers (and uvicorn's) to `stream`, redacted. Calling it again replaces what it did
    before.

    Args:
        level: of our loggers; other libraries stay at WARNING.
        stream: standard error when None.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
    for name, its_level in (("journeyman", level), ("uvicorn", max(level, logging.WARNING))):
        logger = logging.getLogger(name)
        for old in [attached for attached in logger.handlers if isinstance(attached.formatter, RedactingFormatter)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(its_level)
        logger.propagate = False
