"""The one-page programs of the recipes run as they are, with a tiny model in place of the base."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import journeyman as jm
from journeyman.local import local
from journeyman.recipes import imitate, prefer, r1_zero, yes_no_maybe

PROGRAMS = [yes_no_maybe, r1_zero, imitate, prefer]
MOST_LINES = 200


@pytest.mark.e2e
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__.rpartition(".")[2])
async def test_a_program_trains_a_step_and_goes_on_where_it_stopped(
    program: ModuleType, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jm, "local", lambda base: local(str(tiny_model), home=tmp_path, num_workers=1))
    await program.main(steps=1)
    assert capsys.readouterr().out.split()[:2] == ["step", "1"]
    await program.main(steps=2)
    assert capsys.readouterr().out.split()[:2] == ["step", "2"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__.rpartition(".")[2])
def test_a_program_is_one_page_on_the_public_names(program: ModuleType) -> None:
    text = Path(str(program.__file__)).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    own = [line for line in text.splitlines() if "journeyman" in line and line.startswith(("import ", "from "))]
    assert own == ["import journeyman as jm"]
