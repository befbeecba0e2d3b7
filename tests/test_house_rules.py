"""The house rules that no linter checks: sizes, names, headers. Complexity and imports are checked by ruff and import-linter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "journeyman").rglob("*.py"))
FILES = SOURCES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_the_rules_look_at_real_files() -> None:
    assert len(SOURCES) > 30


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_fits_on_few_screens(path: Path) -> None:
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_FILE_LINES, f"{name_of(path)} has {num_lines} lines: give one of its jobs a file of its own"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_fits_on_one_screen(path: Path) -> None:
    long = {
        f"{node.name} (line {node.lineno}): {node.end_lineno - node.lineno + 1} lines"
        for node in functions_of(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long, f"{name_of(path)}: {', '.join(sorted(long))}; the limit is {MAX_FUNCTION_LINES}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "__init__.py" and not text.strip():
        return
    assert ast.get_docstring(ast.parse(text)), f"{name_of(path)} opens without a docstring: what is it for, and not for?"


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [name_of(path) for path in FILES if path.stem in VAGUE_NAMES or VAGUE_NAMES & set(path.parent.parts[-3:])]
    assert not vague, f"name these after the one thing they do: {vague}"


# Lines of what a process or another library said; no file of rows.
CUTS_OUTPUT_INTO_LINES = {"export/gguf_check.py", "modeling/base_models.py"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_json_lines_are_read_by_the_one_reader(path: Path) -> None:
    """A file that parses JSON and cuts text with splitlines takes U+2028 inside a value for the end of a line."""
    text = path.read_text(encoding="utf-8")
    if path.relative_to(ROOT / "src" / "journeyman").as_posix() in CUTS_OUTPUT_INTO_LINES:
        return
    assert not (".splitlines()" in text and re.search(r"json\.loads|parse_json|model_validate_json", text)), "use types/text_files.py"


WRITES_TO_THE_TERMINAL = {"cli/console.py", "observe/logs.py"}


def terminal_writes(path: Path) -> list[int]:
    """Lines that call print, use standard output or error, or make a console of rich's own."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        used = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        is_print = called in ("print", "Console", "rich.print", "typer.echo", "typer.secho", "click.echo", "click.secho")
        if is_print or used in ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"):
            found.append(node.lineno)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_texts_reach_the_terminal_through_the_one_door(path: Path) -> None:
    """Text of models, servers and data may hold escape sequences, markup and secrets: `cli/console.py` takes care of them."""
    if path.relative_to(ROOT / "src" / "journeyman").as_posix() not in WRITES_TO_THE_TERMINAL:
        assert not terminal_writes(path), f"{name_of(path)} writes to the terminal itself in line {terminal_writes(path)}"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name == "cli"], ids=name_of)
def test_commands_print_no_markup(path: Path) -> None:
    """Texts are printed as they are; a style is given by `styled`."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"markup=True|from_markup|rich\.markup", text), f"{name_of(path)} interprets markup"
