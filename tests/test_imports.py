"""What importing costs: nothing heavy, nothing printed, no threads. Each check runs in a fresh interpreter."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import journeyman

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "vllm",
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "scipy",
    "matplotlib",
    "safetensors",
    "datasets",
    "pyarrow",
)
LIGHT_PARTS = ("errors", "types", "config", "observe", "llm", "mcp", "client", "data", "rewards", "scenarios", "agents")

BLOCKER = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked by the test", name=name)
sys.meta_path.insert(0, Absent())
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False)


def light_modules() -> list[str]:
    found = pkgutil.walk_packages(journeyman.__path__, "journeyman.")
    return sorted(module.name for module in found if module.name.split(".")[1] in LIGHT_PARTS)


def test_the_light_parts_import_where_the_heavy_libraries_are_absent() -> None:
    modules = light_modules()
    assert len(modules) > 10
    imports = "\n".join(f"import {name}" for name in modules)
    result = run_python(BLOCKER.format(blocked=(*HEAVY, "openai", "mcp", "httpx", "httpx2")) + imports)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_public_names_resolve_where_the_heavy_libraries_are_absent() -> None:
    names = [name for name in journeyman.__all__ if name != "local"]
    result = run_python(BLOCKER.format(blocked=HEAVY) + f"import journeyman\nfor n in {names!r}: getattr(journeyman, n)")
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("statement", ["import journeyman", "from journeyman.cli.app import build; build()"])
def test_importing_is_quick_and_silent_and_starts_nothing(statement: str) -> None:
    result = run_python(
        f"""
import sys, threading, time
before = time.process_time()
{statement}
seconds = time.process_time() - before
assert threading.active_count() == 1, threading.enumerate()
loaded = [name for name in {(*HEAVY, "openai", "mcp")!r} if name in sys.modules]
assert not loaded, loaded
assert seconds < 0.5, seconds
"""
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (result.stdout, result.stderr) == ("", "")


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = journeyman.no_such_name
