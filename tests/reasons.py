"""Errors by the word they carry for programs: for `pytest.raises(StoreError, check=has_reason("run_in_use"))`."""

from __future__ import annotations

from collections.abc import Callable

from journeyman.errors import JourneymanError


def has_reason(reason: str) -> Callable[[JourneymanError], bool]:
    """Whether an error says this reason; a test that fails shows the error itself."""
    return lambda error: error.reason == reason
