"""Steps whose gradient is NaN or infinite: skipped, named and counted; the third in a row is an error."""

from __future__ import annotations

import logging

from journeyman.errors import TrainingError
from journeyman.trainer.optimizer import NotFiniteError
from journeyman.types.settings import MAX_SKIPPED_IN_A_ROW

_log = logging.getLogger(__name__)


class Skips:
    """Counts what was skipped in a row. One sound update makes it forget."""

    def __init__(self, in_a_row: int = 0) -> None:
        self.in_a_row = in_a_row

    def forget(self) -> None:
        self.in_a_row = 0

    def skip(self, what: str, error: NotFiniteError) -> None:
        """Count `what` ("step 7") as skipped for `error`; raises TrainingError when it is the third in a row."""
        if self.in_a_row + 1 >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{what}: {error.message}; {MAX_SKIPPED_IN_A_ROW} in a row, so training stops",
                hint="lower the learning rate, or look at what is named here",
            ) from error
        self.in_a_row += 1
        _log.warning("%s was skipped (%d in a row): %s", what, self.in_a_row, error.message)
