"""The one-page programs of `examples/` run as they are, with a tiny model in place of the base."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
from examples import imitate, prefer, r1_zero, use_tools, yes_no_maybe

import journeyman as jm
from journeyman.local import local

PROGRAMS = [yes_no_maybe, r1_zero, imitate, prefer, use_tools]
SERVER = Path(__file__).parents[1] / "recipes" / "number_server.py"
SMALL: dict[ModuleType, dict[str, object]] = {
    use_tools: {
        "SERVER": shlex.join([sys.executable, str(SERVER)]),
        "NUM_TRAIN": 4,
        "NUM_HELDOUT": 2,
        "GROUPS_PER_STEP": 1,
        "GROUP_SIZE": 2,
        "MAX_TURNS": 1,
        "MAX_TOKENS": 8,
        "DRILLS_PER_STEP": 2,
        "MOST_DRILL_STEPS": 1,
    }
}
MOST_LINES = 200


@pytest.mark.e2e
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__.rpartition(".")[2])
async def test_a_program_trains_a_step_and_goes_on_where_it_stopped(
    program: ModuleType, long_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jm, "local", lambda base: local(str(long_model), home=tmp_path, num_workers=1))
    for name, value in SMALL.get(program, {}).items():
        monkeypatch.setattr(program, name, value)
    await program.main(steps=1)
    assert capsys.readouterr().out.split()[:2] == ["step", "1"]
    await program.main(steps=2)
    again = capsys.readouterr().out
    assert again.split()[:2] == ["step", "2"]
    if program is use_tools:
        assert "then compared" in again
        assert [line.split(":")[0] for line in again.splitlines()[1:]] == ["base", "trained"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__.rpartition(".")[2])
def test_a_program_is_one_page_on_the_public_names(program: ModuleType) -> None:
    text = Path(str(program.__file__)).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    own = [line for line in text.splitlines() if "journeyman" in line and line.startswith(("import ", "from "))]
    tasks = [line for line in own if line.startswith(f"from journeyman.recipes.{program.__name__.rpartition('.')[2]} import")]
    assert own == ["import journeyman as jm", *tasks]
