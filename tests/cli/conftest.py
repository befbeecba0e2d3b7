from __future__ import annotations

import pytest

from journeyman.cli import app
from journeyman.errors import JourneymanError


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[JourneymanError]:
    """The errors that commands end with, in the place of their texts on the terminal."""
    errors: list[JourneymanError] = []

    def keep(error: JourneymanError) -> int:
        errors.append(error)
        return error.exit_code

    monkeypatch.setattr(app, "show_failure", keep)
    return errors
