"""The documents stay true: links lead somewhere, commands exist with these options, and code marked runnable runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from journeyman.cli.app import run

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
RUNNABLE = re.compile(r"<!-- runnable -->\n```python\n(.*?)```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands_of(path: Path) -> list[str]:
    text = "\n".join(SHELL.findall(path.read_text(encoding="utf-8"))).replace("\\\n", " ")
    return [line.partition(" #")[0].strip() for line in text.splitlines() if line.startswith("journeyman ")]


COMMANDS = [(name_of(path), command) for path in DOCUMENTS for command in commands_of(path)]
EXAMPLES = [
    pytest.param(code, id=f"{name_of(path)}:{at}")
    for path in DOCUMENTS
    for at, code in enumerate(RUNNABLE.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_inside_the_project_lead_somewhere(path: Path) -> None:
    targets = [target for target in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in target]
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing, f"{name_of(path)} links to {missing}"


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=[command for _document, command in COMMANDS])
def test_documented_commands_exist_with_these_options(document: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)[1:]
    assert run([*words, "--help"]) == 0, f"{document}: {command}\n{capsys.readouterr().err}"


def test_the_file_for_coding_agents_stays_short() -> None:
    assert len((ROOT / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_there_is_a_runnable_example_of_about_twenty_lines() -> None:
    assert EXAMPLES
    statements = [line for line in str(EXAMPLES[0].values[0]).splitlines() if line.strip()]
    assert len(statements) <= 24


@pytest.mark.e2e
@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_marked_runnable_run(code: str, tiny_model: Path, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(code.replace('"smollm2-135m"', repr(str(tiny_model))))
    result = subprocess.run([sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip(), "the example prints nothing"
