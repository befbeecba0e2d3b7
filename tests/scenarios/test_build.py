"""Scenarios from real servers, end to end without a model."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from journeyman.errors import InputError, McpError, SettingError
from journeyman.mcp import McpTarget, McpTool, open_server
from journeyman.scenarios import ScenarioSet, ScenarioSettings, build_scenarios, drills
from journeyman.types.scenarios import Scenario

Make = Callable[..., McpTarget]

NAMES = (
    "Europe/Paris Europe/Rome Europe/Berlin Asia/Kolkata Asia/Singapore Asia/Dubai America/Chicago America/Denver Mars/Base "
    "Africa/Cairo Africa/Lagos Australia/Sydney Europe/Oslo Asia/Taipei Europe/Atlantis America/Phoenix"
)
ZONES = NAMES.split()


class FixedProposer:
    """Offers a list, a part at a time."""

    def __init__(self, values: Sequence[str]) -> None:
        self.left = list(values)

    async def propose(self, tool: McpTool, parameter: str, schema: dict[str, Any], known: Sequence[str], count: int) -> list[str]:
        del tool, parameter, schema, known
        some, self.left = self.left[:count], self.left[count:]
        return some


def _values(scenarios: Sequence[Scenario]) -> set[Any]:
    return {value for one in scenarios if one.witness for call in one.witness.calls for value in call.arguments.values()}


async def test_a_real_server_yields_feasible_scenarios_with_unseen_values() -> None:
    async with open_server(McpTarget.parse("python -m mcp_server_time")) as server:
        made = await build_scenarios(server, proposer=FixedProposer(ZONES), seed=1)
    assert (len(made.train), len(made.heldout)) == (96, 64)
    assert not _values(made.train) & _values(made.heldout)
    assert "Mars/Base" not in _values(made.train) | _values(made.heldout)
    tasks = [scenario.task for scenario in (*made.train, *made.heldout)]
    assert len(set(tasks)) == len(tasks)
    kinds = [scenario.data["kind"] for scenario in made.train]
    assert 0.1 <= 1 - kinds.count("one call") / len(kinds) <= 0.2
    for scenario in (*made.train, *made.heldout):
        assert scenario.witness is not None
        for answer in scenario.witness.answers:
            call = scenario.witness.calls[answer.call]
            node = json.loads(call.result)
            for key in answer.path:
                node = node[key]
            assert answer.value in (node, "same", "different")
        assert "_" not in scenario.task.replace("New_York", "")


async def test_the_same_seed_gives_the_same_scenarios(target: Make) -> None:
    # Of a server whose results do not change with the clock: what is asked depends on what the results were.
    countries = ["Spain", "Japan", "Kenya", "Peru", "Chad", "Norway", "Poland", "Cuba", "Egypt", "India"]
    async with open_server(target("plain_server", "good")) as server:
        settings = ScenarioSettings(num_train=12, num_heldout=8)
        made = [await build_scenarios(server, settings, proposer=FixedProposer(countries), seed=seed) for seed in (3, 3, 4)]
    tasks = [[scenario.task for scenario in one.train] for one in made]
    assert tasks[0] == tasks[1]
    assert tasks[0] != tasks[2]


class ProposerByName:
    """Offers a list for each parameter, once."""

    def __init__(self, **values: Sequence[str]) -> None:
        self.values = values

    async def propose(self, tool: McpTool, parameter: str, schema: dict[str, Any], known: Sequence[str], count: int) -> list[str]:
        del tool, schema, known, count
        return list(self.values.pop(parameter, ()))


async def test_what_is_built_without_a_writer_for_a_seed_does_not_change(target: Make) -> None:
    """Studies compare runs across versions: a change of the tasks must be meant, and then be written here."""
    sums = [f"{number} + {7 * number % 23}" for number in range(3, 40)]
    async with open_server(target("plain_server", "shapes")) as server:
        settings = ScenarioSettings(num_train=12, num_heldout=8, values_per_parameter=8, read_only=("calculate",), call_timeout_seconds=120)
        made = await build_scenarios(server, settings, proposer=ProposerByName(timezone=ZONES, expression=sums))
    # What else was seen in the place of an answer is for the judge: it asks for nothing.
    rows = [scenario.model_dump(exclude={"witness": {"answers": {"__all__": {"seen"}}}}) for scenario in (*made.train, *made.heldout)]
    assert hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16] == "8cd6fb817f07c90a"


async def test_nested_arguments_and_enumerations_work_and_writes_are_never_called(target: Make, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    proposer = FixedProposer(["Spain", "Japan", "Kenya", "Peru", "Chad", "Norway", "Poland", "Cuba", "Egypt", "India", "Mars"])
    async with open_server(target("plain_server", "good", MARK=str(mark))) as server:
        settings = ScenarioSettings(num_train=12, num_heldout=8, read_only=("box_area",))
        made = await build_scenarios(server, settings, proposer=proposer)
    assert os.listdir(tmp_path) == []
    assert {tool.name for tool in made.tools} == {"findCapital", "box_area"}
    assert any("capital city" in scenario.task for scenario in made.heldout)
    assert any("width" in scenario.task for scenario in made.train)


async def test_writes_are_called_when_allowed(target: Make, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with open_server(target("plain_server", "good", MARK=str(mark))) as server:
        await build_scenarios(server, ScenarioSettings(num_train=4, num_heldout=4, allow_writes=True))
    assert os.listdir(tmp_path) == ["mark"]


async def test_failures_returned_as_text_make_no_scenarios(target: Make) -> None:
    async with open_server(target("plain_server", "old")) as server:
        proposer = FixedProposer(["horse", "cow", "bird", "f1sh", "ant", "sheep", "goat", "owl"])
        made = await build_scenarios(server, ScenarioSettings(read_only=("lookup",)), proposer=proposer)
    assert not _values((*made.train, *made.heldout)) & {"xyz", "qqq", "f1sh"}
    assert any("scenarios are feasible" in note for note in made.notes)


async def test_values_known_by_their_form_alone_make_scenarios(target: Make) -> None:
    async with open_server(target("plain_server", "codes")) as server:
        made = await build_scenarios(server, ScenarioSettings(num_train=12, num_heldout=8))
    assert (len(made.train), len(made.heldout)) == (12, 8)
    assert {tool.name for tool in made.tools} == {"order_total", "mailbox_size"}
    values = _values((*made.train, *made.heldout))
    assert {"inbox", "sent"} <= values
    assert all(re.fullmatch(r"ORD-\d{3}|[a-z.]+@example\.\w+|inbox|sent", value) for value in values)


async def test_nothing_feasible_says_what_is_missing(target: Make) -> None:
    async with open_server(target("plain_server", "writes")) as server:
        with pytest.raises(McpError) as caught:
            await build_scenarios(server)
        assert caught.value.reason == "only_write_tools"
        with pytest.raises(McpError, match="text") as caught:
            await build_scenarios(server, ScenarioSettings(allow_writes=True, tools=("create_note",)))
        assert caught.value.reason == "no_feasible_scenarios"


async def test_drills_use_training_values_and_the_words_of_tasks() -> None:
    async with open_server(McpTarget.parse("python -m mcp_server_time")) as server:
        made = await build_scenarios(server, proposer=FixedProposer(ZONES), seed=1)
    found = drills(made, random.Random(0), 40)
    assert len({drill.task for drill in found}) == 40
    used = {value for drill in found for _, arguments in drill.calls for value in arguments.values()}
    assert not used & _values(made.heldout)
    assert {name for drill in found for name, _ in drill.calls} == {"get_current_time", "convert_time"}
    for drill in found:
        assert all(str(value) in drill.task for _, arguments in drill.calls for value in arguments.values())
    answered = [drill for drill in found if drill.answer is not None]
    assert {len(drill.calls) for drill in answered} == {1, 2}
    for drill in answered:
        assert len(drill.results) == len(drill.calls)
        assert all(isinstance(json.loads(result), dict) for result in drill.results)
    assert all(drill.results == () for drill in found if drill.answer is None)


async def test_tasks_for_a_tool_that_is_not_offered_any_more_are_refused(target: Make) -> None:
    async with open_server(target("plain_server", "good")) as server:
        settings = ScenarioSettings(num_train=4, num_heldout=2, tools=("box_area",), read_only=("box_area",))
        made = await build_scenarios(server, settings)
        made.check_offered(server.tools)
        with pytest.raises(SettingError) as caught:
            made.check_offered([tool for tool in server.tools if tool.name != "box_area"])
    assert (caught.value.reason, "box_area" in caught.value.message) == ("tools_missing", True)


async def test_a_set_survives_saving_and_a_broken_line_is_named(target: Make, tmp_path: Path) -> None:
    async with open_server(target("plain_server", "old")) as server:
        proposer = FixedProposer(["horse", "cow", "bird", "ant", "sheep", "goat"])
        made = await build_scenarios(server, ScenarioSettings(read_only=("lookup",)), proposer=proposer)
    made.save(tmp_path / "set")
    assert ScenarioSet.load(tmp_path / "set") == made
    _append(tmp_path / "set" / "train.jsonl", '{"id": 3}\n')
    with pytest.raises(InputError, match=rf"train.jsonl, line {len(made.train) + 1}"):
        ScenarioSet.load(tmp_path / "set")


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
