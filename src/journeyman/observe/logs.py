"""Logging set-up for the program, and the filter that keeps rollout tokens out of every log line.

Library code only does `logging.getLogger(__name__)`; nothing here runs at import. A program calls `set_up_logging`
once.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TextIO

_ROLLOUT_TOKEN = re.compile(r"(/r/[A-Za-z0-9_-]+\.)[A-Za-z0-9_-]+")
_BEARER = re.compile(r"(?i)(\bbearer\s+)[^\s\"',]+")


def redact(text: str) -> str:
    """The text with rollout tokens and bearer tokens replaced by `***`.

    Example:
        >>> redact("POST /r/ab12.s3cret/v1/chat/completions")
        'POST /r/ab12.***/v1/chat/completions'
    """
    return _BEARER.sub(r"\1***", _ROLLOUT_TOKEN.sub(r"\1***", text))


class RedactingFormatter(logging.Formatter):
    """Formats as usual, then redacts: message, arguments and traceback alike."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


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
        for old in [one for one in logger.handlers if isinstance(one.formatter, RedactingFormatter)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(its_level)
        logger.propagate = False
