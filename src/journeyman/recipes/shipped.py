"""The settings and data files that come with Journeyman, found by their names alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from journeyman.config import path_of

CONFIGS: Final = Path(__file__).parent / "configs"


def shipped_or(source: str) -> str:
    """A data file by its path, a shipped one when there is none here of that name; anything else as it is.

    Example:
        >>> Path(shipped_or("orders.jsonl")).is_file(), shipped_or("some-org/some-set")
        (True, 'some-org/some-set')
    """
    return str(CONFIGS / source) if not path_of(source).exists() and (CONFIGS / source).is_file() else source
