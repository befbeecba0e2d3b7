"""The public names resolve lazily, and a module of the same name does not hide the function."""

from __future__ import annotations

import subprocess
import sys

import pytest

import journeyman as jm

_SCRIPT = """
import sys
import journeyman.config, journeyman.client.backend, journeyman.client.gather
import journeyman as jm
jm.Scenario, jm.Grpo, jm.Model, jm.connect, jm.gather
heavy = {"openai", "torch", "transformers", "fastapi", "sqlalchemy", "mcp", "yaml"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_client_loads_without_anything_heavy() -> None:
    subprocess.run([sys.executable, "-c", _SCRIPT], check=True, timeout=60)


def test_importing_the_package_loads_nothing_but_its_version() -> None:
    script = "import sys, journeyman; assert [m for m in sys.modules if m.startswith('journeyman.')] == ['journeyman.version']"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("name", [name for name in jm.__all__ if name != "__version__"])
def test_every_public_name_resolves(name: str) -> None:
    assert callable(getattr(jm, name))
    assert name in dir(jm)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jm.nothing


def test_importing_the_local_module_does_not_hide_the_function() -> None:
    import journeyman.local  # noqa: F401

    assert callable(jm.local)
