"""What building gives: scenarios in two splits, and the material that drills are made of. Saved as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from journeyman.errors import InputError, StoreError
from journeyman.scenarios.results import Path
from journeyman.scenarios.tools import McpTool
from journeyman.types.messages import Tool
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario

RecordType = TypeVar("RecordType", bound=Record)

_FILES = ("train.jsonl", "heldout.jsonl", "materials.jsonl", "notes.jsonl")


class ToolMaterial(Record):
    """What a drill for one tool may use: values of the training split per parameter, and the leaves that tasks ask for."""

    tool: McpTool
    values: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    leaves: tuple[Path, ...] = ()


class ScenarioSet(Record):
    """Scenarios of one server.

    Attributes:
        train, heldout: no free value of a held-out scenario's calls occurs in training or in drills.
        materials: one for each tool the scenarios use, for drills.
        notes: what a user should know: fewer scenarios than asked for, tools left out and why.
    """

    train: tuple[Scenario, ...]
    heldout: tuple[Scenario, ...]
    materials: tuple[ToolMaterial, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tools(self) -> tuple[McpTool, ...]:
        return tuple(material.tool for material in self.materials)

    @property
    def functions(self) -> tuple[Tool, ...]:
        """The tools as the model is offered them, in the order in which rollouts must offer them too."""
        return tuple(tool.function for tool in self.tools)

    def save(self, folder: FilePath) -> None:
        """Write the set into a folder, one JSON object a line. Raises StoreError."""
        rows = (self.train, self.heldout, self.materials)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, records in zip(_FILES, rows, strict=False):
                text = "".join(record.model_dump_json() + "\n" for record in records)
                (folder / name).write_text(text, encoding="utf-8")
            notes = "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in self.notes)
            (folder / _FILES[3]).write_text(notes, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"the scenarios cannot be written to {folder}: {error}", hint="check the folder and the free space") from error

    @classmethod
    def load(cls, folder: FilePath) -> ScenarioSet:
        """Read a saved set; you may have edited the tasks. Raises InputError naming the file and line."""
        return cls(
            train=tuple(_read(folder / _FILES[0], Scenario)),
            heldout=tuple(_read(folder / _FILES[1], Scenario)),
            materials=tuple(_read(folder / _FILES[2], ToolMaterial)),
            notes=tuple(json.loads(line) for _, line in _lines(folder / _FILES[3])),
        )


def _read(path: FilePath, kind: type[RecordType]) -> list[RecordType]:
    found = []
    for number, line in _lines(path):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}, line {number} is not a {kind.__name__}: {error.errors()[0]['msg']}") from error
    return found


def _lines(path: FilePath) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"the scenario file {path} cannot be read: {error}") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
