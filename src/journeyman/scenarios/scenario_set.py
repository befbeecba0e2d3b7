"""What building gives: scenarios in two splits, and the material that drills are made of. Saved as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import Field, RootModel

from journeyman.errors import SettingError, StoreError
from journeyman.mcp.results import Path
from journeyman.mcp.tools import McpTool
from journeyman.types.messages import Tool
from journeyman.types.record import Record
from journeyman.types.scenarios import Scenario
from journeyman.types.text_files import json_line, read_records

_FILES = ("train.jsonl", "heldout.jsonl", "materials.jsonl", "notes.jsonl")


class _Note(RootModel[str]):
    """A line of the notes."""


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

    def check_offered(self, tools: Sequence[McpTool]) -> None:
        """Raise SettingError (tools_missing) when a tool that the tasks ask for is not among those that are offered."""
        offered = {tool.name for tool in tools}
        missing = [tool.server_name for tool in self.tools if tool.name not in offered]
        if missing:
            raise SettingError(
                f"there are tasks for tools that are not offered any more: {', '.join(missing)}",
                hint="see journeyman mcp tools; go on with --resume RUN --allow-changed-settings and --read-only "
                f"{','.join(missing)} (they only read) or --allow-writes",
                reason="tools_missing",
            )

    def save(self, folder: FilePath) -> None:
        """Write the set into a folder, one JSON object a line. Raises StoreError."""
        rows: tuple[Sequence[object], ...] = (self.train, self.heldout, self.materials, self.notes)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, entries in zip(_FILES, rows, strict=True):
                (folder / name).write_text("".join(map(json_line, entries)), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"the scenarios cannot be written to {folder}: {error}", hint="check the folder and the free space") from error

    @classmethod
    def load(cls, folder: FilePath) -> ScenarioSet:
        """Read a saved set; you may have edited the tasks. Raises InputError naming the file and line."""
        return cls(
            train=tuple(read_records(folder / _FILES[0], Scenario)),
            heldout=tuple(read_records(folder / _FILES[1], Scenario)),
            materials=tuple(read_records(folder / _FILES[2], ToolMaterial)),
            notes=tuple(note.root for note in read_records(folder / _FILES[3], _Note)),
        )
