"""Tasks in a writer's words: several wordings, two tools at once, values it proposes; checked before use."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.llm_server import Answer, scripted, serve
from tests.scenarios.test_build import ZONES, FixedProposer, ProposerByName

from journeyman.errors import LlmError, McpError
from journeyman.llm import Llm, LlmEndpoint, LlmSettings
from journeyman.mcp import McpTarget, open_server
from journeyman.mcp.tools import describe_tool
from journeyman.scenarios import ChatWriter, InTurn, ScenarioSet, ScenarioSettings, WriterProposer, build_scenarios
from journeyman.scenarios.writer import Paraphrases, Writer, reword_all
from journeyman.types.scenarios import Scenario, Witness, WitnessCall

Make = Callable[..., McpTarget]
TOOLS = ("get_current_time", "calculate")
SUMS = [f"{number} + {7 * number % 23}" for number in range(3, 40)]


class Plain:
    """Words as many tasks as it is asked for, all good. `asked` keeps the tasks."""

    def __init__(self) -> None:
        self.asked: list[Scenario] = []

    async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], styles: Sequence[str]) -> Paraphrases:
        del forbidden
        self.asked.append(scenario)
        return Paraphrases(tuple(f"Kindly, {style}, {scenario.id}: {' and '.join(values)}" for style in styles), 2)


async def _small(target: McpTarget, writer: Writer) -> ScenarioSet:
    async with open_server(target) as server:
        proposer = FixedProposer(["horse", "cow", "bird", "ant", "sheep", "goat"])
        settings = ScenarioSettings(num_train=12, num_heldout=4, read_only=("lookup",))
        return await build_scenarios(server, settings, proposer=proposer, writer=writer)


async def _several_tools(target: McpTarget, writer: Writer) -> ScenarioSet:
    sizes = {"num_train": 20, "num_heldout": 10, "values_per_parameter": 8}
    settings = ScenarioSettings(**sizes, joined_share=0.3, tools=TOOLS, read_only=("calculate",), call_timeout_seconds=120)
    async with open_server(target) as server:
        proposer = ProposerByName(timezone=ZONES, expression=SUMS)
        return await build_scenarios(server, settings, proposer=proposer, writer=writer)


def _calls(scenario: Scenario) -> list[tuple[str, str]]:
    assert scenario.witness is not None
    return [(call.tool, json.dumps(call.arguments)) for call in scenario.witness.calls]


async def test_tasks_that_share_a_call_get_wordings_of_their_own_from_one_question(target: Make) -> None:
    writer = Plain()
    made = await _small(target("plain_server", "old"), writer)
    scenarios = [*made.train, *made.heldout]
    calls = {str(_calls(scenario)) for scenario in scenarios}
    assert len(calls) < len(scenarios)
    assert len(writer.asked) == len(calls)
    assert len({scenario.task.casefold() for scenario in scenarios}) == len(scenarios)
    assert all(scenario.task.startswith("Kindly") for scenario in scenarios)


def _scenario(kind: str, *words: str, task: str) -> Scenario:
    calls = tuple(WitnessCall(tool="lookup", arguments={"word": word}, result=f"{len(word)} letters") for word in words)
    return Scenario(
        id="train-000", task=task, difficulty=min(5, 1 + 2 * (len(calls) > 1)), witness=Witness(calls=calls), data={"kind": kind}
    )


async def test_difficulty_is_the_writers_and_never_lower_than_several_calls_make_it() -> None:
    scenarios = [
        _scenario("one call", "cat", task="How long is cat?"),
        _scenario("two calls", "cow", "ant", task="How long are cow and ant?"),
    ]
    made, _ = await reword_all(Plain(), scenarios, [], [], random.Random(0), set())
    assert [scenario.difficulty for scenario in made] == [2, 3]


async def test_a_comparison_still_asks_for_the_words_of_its_answer() -> None:
    class Chatty(Plain):
        async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], styles: Sequence[str]) -> Paraphrases:
            assert values == ["cow", "ant", "same", "different"]
            return Paraphrases(("Are cow and ant equally long?", "Have cow and ant the same length, or a different one?"), 1)

    scenario = _scenario("comparison", "cow", "ant", task="Do cow and ant have the same length, or a different one?")
    made, notes = await reword_all(Chatty(), [scenario], [], [], random.Random(0), set())
    assert (made[0].task, notes) == ("Have cow and ant the same length, or a different one?", [])


async def test_no_wording_is_used_twice() -> None:
    class Alike(Plain):
        async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], styles: Sequence[str]) -> Paraphrases:
            return Paraphrases(("Measure cat", "measure cat"), 1)

    scenarios = [_scenario("one call", "cat", task=task) for task in ("How long is cat?", "cat: how long?")]
    made, notes = await reword_all(Alike(), scenarios, [], [], random.Random(0), set())
    assert [scenario.task for scenario in made] == ["Measure cat", "cat: how long?"]
    assert "1 of 2 tasks keep" in notes[0]


async def test_two_tools_are_joined_in_one_task_with_both_answers(target: Make) -> None:
    made = await _several_tools(target("plain_server", "shapes"), Plain())
    assert (len(made.train), len(made.heldout)) == (20, 10)
    assert [scenario.id for scenario in made.train] == [f"train-{number:03d}" for number in range(20)]
    for side, wanted in ((made.train, 6), (made.heldout, 3)):
        joined = [scenario for scenario in side if scenario.data["kind"] == "two tools"]
        assert len(joined) == wanted
        for scenario in joined:
            assert scenario.witness is not None
            first, second = scenario.witness.calls
            assert first.tool != second.tool
            assert [answer.call for answer in scenario.witness.answers] == [0, 1]
            for answer in scenario.witness.answers:
                assert str(answer.value) in scenario.witness.calls[answer.call].result
            assert all(str(value) in scenario.task for call in (first, second) for value in call.arguments.values())
            assert scenario.difficulty >= 4


async def test_a_joined_task_that_cannot_be_worded_is_left_out(target: Make) -> None:
    class OneAtATime(Plain):
        async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], styles: Sequence[str]) -> Paraphrases:
            kept = values[:1] if scenario.data["kind"] == "two tools" else values
            return await super().reword(scenario, kept, forbidden, styles)

    made = await _several_tools(target("plain_server", "shapes"), OneAtATime())
    assert (len(made.train), len(made.heldout)) == (20, 10)
    assert not any(scenario.data["kind"] == "two tools" for scenario in (*made.train, *made.heldout))
    assert any(note.startswith("6 of 6 ") for note in made.notes)


@pytest.mark.parametrize("text", ["Do something {style}", "{values} with the country_name, {style}", "{values}" + " please" * 60])
async def test_wordings_that_lose_a_value_name_a_parameter_or_ramble_are_not_used(target: Make, text: str) -> None:
    class Careless:
        async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], styles: Sequence[str]) -> Paraphrases:
            del scenario, forbidden
            return Paraphrases(tuple(text.format(values=" ".join(values), style=style) for style in styles), 1)

    async with open_server(target("plain_server", "good")) as server:
        proposer = FixedProposer(["Spain", "Japan", "Kenya", "Peru", "Chad", "Norway", "Poland", "Cuba"])
        settings = ScenarioSettings(num_train=6, num_heldout=4, tools=("findCapital",))
        made = await build_scenarios(server, settings, proposer=proposer, writer=Careless())
    assert not any(re.search(r"something|country_name|please please", scenario.task) for scenario in made.train)
    assert any(note.startswith("6 of 6 ") for note in made.notes)


async def test_a_writer_that_always_fails_is_an_error(target: Make) -> None:
    class Broken:
        async def reword(self, scenario: Scenario, values: Sequence[str], forbidden: Sequence[str], styles: Sequence[str]) -> Paraphrases:
            raise LlmError("no such model")

    with pytest.raises(LlmError, match="no such model"):
        await _small(target("plain_server", "old"), Broken())


def _as_writer(request: dict[str, Any]) -> Answer:
    """What a good model would say to the prompts of the writer."""
    prompt = request["messages"][-1]["content"]
    if "Propose" in prompt:
        known = SUMS if "calculate" in prompt else ZONES
        return Answer(json.dumps({"values": [value for value in known if f'"{value}"' not in prompt][:12]}))
    listed = re.search(r"in each of them: (.*)", prompt)
    styles = re.search(r"from each other: (.*)\.", prompt)
    assert listed is not None
    assert styles is not None
    values = re.findall(r'"([^"]*)"', listed.group(1))
    asked = prompt.rpartition("Request: ")[2]
    wordings = [f"I wonder {style}, {' or '.join(values)} ({sum(map(ord, asked))})?" for style in styles.group(1).split(", ")]
    return Answer(json.dumps({"wordings": wordings, "difficulty": 5}))


def _llm(base_url: str) -> Llm:
    return Llm(LlmEndpoint(model="writer", base_url=base_url), settings=LlmSettings(max_retries=0))


async def test_a_chat_model_proposes_the_values_and_words_the_tasks(target: Make) -> None:
    with serve(_as_writer) as served:
        async with open_server(target("plain_server", "shapes")) as server, _llm(served.base_url) as llm:
            writer = ChatWriter(llm)
            sizes = {"num_train": 12, "num_heldout": 8, "values_per_parameter": 8}
            settings = ScenarioSettings(**sizes, tools=TOOLS, read_only=("calculate",), call_timeout_seconds=120)
            made = await build_scenarios(server, settings, proposer=writer.proposer(), writer=writer)
    assert (len(made.train), len(made.heldout)) == (12, 8)
    assert all(scenario.task.startswith("I wonder") and scenario.difficulty == 5 for scenario in (*made.train, *made.heldout))
    assert {scenario.data["kind"] for scenario in made.train} >= {"one call", "two tools"}
    used = {value for scenario in made.train for _, arguments in _calls(scenario) for value in json.loads(arguments).values()}
    assert used & set(ZONES)
    assert used & set(SUMS)
    first = served.requests[0]["messages"][0]["content"]
    assert '"type": "string"' in first  # the schema is part of the question


TOOL = describe_tool(
    "now", "Tells the time.", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}, (True, False)
)


class TestProposals:
    async def _rounds(self, answers: Sequence[str], known: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
        with serve(scripted(*answers)) as served:
            async with _llm(served.base_url) as llm:
                proposer = WriterProposer(llm, max_rounds_per_parameter=3)
                found = [await proposer.propose(TOOL, "city", {"type": "string"}, some, 4) for some in known]
        return found, [request["messages"][0]["content"] for request in served.requests]

    async def test_a_round_is_told_what_worked_and_what_was_refused_and_gives_only_what_is_new(self) -> None:
        answers = ['{"values": ["Oslo", "Rome ", "Oslo", "", "a\\nb"]}', '{"values": ["Rome", "Bonn"]}']
        found, prompts = await self._rounds(answers, [["Kiel"], ["Kiel", "Oslo"]])
        assert found == [["Oslo", "Rome"], ["Bonn"]]
        assert 'took: "Kiel", "Oslo"' in prompts[1]
        assert 'refused: "Rome"' in prompts[1]

    async def test_nothing_new_and_unusable_replies_end_it(self) -> None:
        assert (await self._rounds(['{"values": ["Oslo"]}'], [["Oslo"]]))[0] == [[]]
        assert (await self._rounds(["I would rather not"], [[]]))[0] == [[]]

    async def test_rounds_are_bounded(self) -> None:
        answers = [json.dumps({"values": [name]}) for name in ("Oslo", "Rome", "Bonn", "Kiel")]
        found, prompts = await self._rounds(answers, [[]] * 4)
        assert (found, len(prompts)) == ([["Oslo"], ["Rome"], ["Bonn"], []], 3)

    async def test_the_next_proposer_is_asked_when_one_has_no_more(self) -> None:
        turns = InTurn(FixedProposer(["a"]), FixedProposer(["b"]))
        assert [await turns.propose(TOOL, "city", {}, [], 4) for _ in range(3)] == [["a"], ["b"], []]


async def test_a_writer_that_does_not_answer_is_named_at_the_start() -> None:
    with serve(scripted(Answer.error(404, "no model called writer"))) as served:
        async with _llm(served.base_url) as llm:
            with pytest.raises(LlmError, match="no model called writer") as caught:
                await ChatWriter(llm).check()
    assert "--writer" in (caught.value.hint or "")


@pytest.mark.parametrize(("writer", "advice"), [(None, "a --writer"), (Plain(), "another --writer")])
async def test_the_advice_for_missing_values_knows_whether_there_is_a_writer(target: Make, writer: Writer | None, advice: str) -> None:
    async with open_server(target("plain_server", "writes")) as server:
        with pytest.raises(McpError) as caught:
            await build_scenarios(server, ScenarioSettings(allow_writes=True, tools=("create_note",)), writer=writer)
    assert advice in (caught.value.hint or "")
