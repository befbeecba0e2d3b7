"""`journeyman runs show RUN --group G`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.rewards.attempts import turn

from journeyman.cli.app import run
from journeyman.store import Store
from journeyman.types.training import FinishRollout
from journeyman.types.trajectory import JudgeCall, Verdict


@pytest.fixture
def home(tmp_path: Path) -> Path:
    said = JudgeCall(call="c1", model="big", place=1, num_shown=2, score=0.8, explanation="names the place", seconds=1.5)
    with Store.open(tmp_path) as store:
        store.runs.create("one", kind="mcp", base="b", settings={})
        for name in ("bad", "good"):
            store.rollouts.open(name, f"token-{name}", model="agent@3", scenario_id="s1", max_turns=4, run="one")
            store.rollouts.append_turn(name, turn(f"a {name} answer"))
            store.rollouts.seal(name, FinishRollout())
        verdicts = {name: Verdict(judge="ruler:big", score=score, calls=(said,)) for name, score in (("bad", 0.1), ("good", 0.8))}
        store.rollouts.set_rewards({"bad": 0.1, "good": 0.8}, verdicts)
    return tmp_path


@pytest.mark.parametrize("group", ["s1", "s1@3"])
def test_a_group_is_shown_side_by_side_best_first(home: Path, group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "one", "--group", group, "--home", str(home)]) == 0
    text = capsys.readouterr().out
    assert text.index("good  reward") < text.index("bad  reward")
    flat = " ".join(text.replace("│", " ").replace("┃", " ").split())
    for words in ("ruler:big", "place 2 of 2", "agent@3"):
        assert words in flat


def test_an_unknown_group_names_those_there_are(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "one", "--group", "nothing", "--home", str(home)]) == 2
    assert "s1" in capsys.readouterr().err


def test_a_group_as_json_holds_every_word_of_the_judge(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "one", "--group", "s1", "--home", str(home), "--json"]) == 0
    assert "names the place" in capsys.readouterr().out
