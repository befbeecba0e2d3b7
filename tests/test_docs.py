"""The documents stay true: links lead somewhere, commands exist with these options, and code marked runnable runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

from journeyman.cli.app import run
from journeyman.config import parse_override
from journeyman.mcp.target import McpTarget
from journeyman.recipes.methods import METHODS, keys_of
from journeyman.recipes.settings import McpTrain, WarmStart

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
RUNNABLE = re.compile(r"<!-- runnable -->\n```python\n(.*?)```", re.DOTALL)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
SETTING = re.compile(r"--set ([a-z][a-z0-9_.]*)=")
BENCHMARK = re.compile(r"python -m (benchmarks\.\w+)([^`\n#]*)")
STUDY = re.compile(r"make study[^`\n#]*ARGS=\"?([^\"`\n#]*)")
OPTION = re.compile(r"(?<!\S)--[\w-]+")
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


def test_every_setting_that_a_document_sets_is_one_of_some_recipe() -> None:
    keys = {key for kind in METHODS.values() for key in keys_of(kind)}
    # A choice may be given by its name (grpo.loss=gspo), and a loss's parameters beside it (grpo.clip_low=0.1).
    keys |= {key.rpartition(".")[0] for key in keys} | {key.replace(".loss.", ".") for key in keys}
    named = {(name_of(path), name) for path in DOCUMENTS for name in SETTING.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 10
    assert not {one for one in named if one[1] not in keys}


def benchmark_options(module: str) -> set[str]:
    """What the program takes, read from its source: starting each would load torch."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    inner = re.findall(r"^from (benchmarks\.\w+) import", text, re.MULTILINE)
    return set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', text)).union(*(benchmark_options(one) for one in inner))


def test_every_benchmark_that_a_document_starts_has_these_options() -> None:
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    started = [found for text in texts for found in BENCHMARK.findall(text)]
    started += [("benchmarks.study", words) for text in texts for words in STUDY.findall(text)]
    assert {"benchmarks.study", "benchmarks.judge", "benchmarks.train_step"} <= {module for module, _words in started}
    wrong = {(module, option) for module, words in started for option in OPTION.findall(words) if option not in benchmark_options(module)}
    assert not wrong


def test_the_table_of_mcp_settings_has_every_setting_with_the_default_that_the_code_has() -> None:
    section = (ROOT / "docs" / "mcp.md").read_text(encoding="utf-8").partition("## Settings")[2].partition("\n## ")[0]
    told = {
        name: parse_override(f"{name}={default}")[1] for name, default in re.findall(r"^\| `([\w.]+)` \| (\S+) \|", section, re.MULTILINE)
    }
    parts = {"grpo": McpTrain.model_fields["grpo"].default, "warm_start.sft": WarmStart.model_fields["sft"].default}
    # Of these the table has what the recipe chooses otherwise; the rest stands in the documents that it names.
    elsewhere = tuple(f"{part}." for part in (*parts, "judge_options", "retention"))
    chosen = {f"{part}.{name}" for part, default in parts.items() for name in default.model_fields_set}
    assert set(told) == {name for name in keys_of(McpTrain) if not name.startswith(elsewhere)} | chosen
    defaults = McpTrain.model_construct(target=McpTarget.model_construct()).model_dump(mode="json")
    wrong = {name: value for name, value in told.items() if reduce(getitem, name.split("."), defaults) != value}
    assert not wrong


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
