"""Where things lie under a home folder. Paths only: nothing here creates or reads a file.

journeyman.db
runs/<run>/config.json, scenarios.jsonl, adapters/<model>@<step>/, checkpoints/step-000007/, report/, evaluations/, costs.json, exports/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from journeyman.types.names import check_name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def scenarios(self) -> Path:
        return self.path / "scenarios.jsonl"

    @property
    def adapters(self) -> Path:
        return self.path / "adapters"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def costs(self) -> Path:
        return self.path / "costs.json"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def lock(self) -> Path:
        return self.path / ".training.lock"


@dataclass(frozen=True, slots=True)
class HomeFolder:
    """The folder that holds everything; absolute."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "journeyman.db"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def run(self, run: str) -> RunFolder:
        """Raises InputError for an id that is no name of a folder in `runs`."""
        check_name(run, "the id of a run")
        return RunFolder(self.runs / run)
