"""One rule for names of runs and models, at every door."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.errors import InputError
from journeyman.store import Store
from journeyman.store.home import HomeFolder
from journeyman.store.models import ModelRow
from journeyman.types.names import Version, check_model_name, is_name
from journeyman.types.runs import CreateRun
from journeyman.types.settings import LoraSettings
from journeyman.types.training import CreateModel

GOOD = ["a", "7", "time-agent", "m.1_b-C", "a..b", "x" * 64, "polite-20260301-101500", "Base", "agent"]
BAD = [
    *("", ".", "..", "../../x", "a/b", "/tmp/x", "a\\b", "-x", ".x", "_x", "my run", "a\tb", "a\n", "\na", "a\x00b", "a\x1b[31m"),
    *("ä", "а", "a\u200b", "a\u00a0b", "a\u2028b", "x" * 65, "x@3", "a:b", "%2e%2e", "~", "a?b", "a#b", "*", "٣"),
]


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_a_folder_a_url_part_and_a_version_is_a_name(name: str, tmp_path: Path) -> None:
    assert is_name(name)
    assert CreateModel(name=name, run=name).run == CreateRun(id=name, kind="k").id == name
    assert HomeFolder(tmp_path).run(name).path.parent == tmp_path / "runs"


@pytest.mark.parametrize("name", BAD)
def test_everything_else_is_refused_at_every_door_and_makes_nothing(name: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Store.open(home) as store:
        doors = (
            lambda: CreateModel(name=name, run="r"),
            lambda: CreateModel(name="m", run=name),
            lambda: CreateRun(id=name, kind="k"),
            lambda: store.home.run(name),
            lambda: store.runs.create(name, kind="k", base="b"),
            lambda: store.models.create(ModelRow("r", name, "b", LoraSettings())),
        )
        for door in doors:
            with pytest.raises(InputError) as caught:
                door()
            assert (caught.value.reason, caught.value.exit_code) == ("invalid_name", 2)
            assert repr(name)[1:20] in caught.value.message
        assert store.runs.list() == ()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert not (home / "runs").exists()


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True), st.integers(0, 10**9))
def test_a_version_is_what_its_name_says(model: str, step: int) -> None:
    assert Version.parse(str(Version(model, step))) == Version(model, step)


@pytest.mark.parametrize("name", [None, "", "base", "m", "m@", "@1", "m@one", "m@01", "m@-1", "m@1.0", "m@١", "m@1@2", "m@1\n"])
def test_what_names_no_version_is_none(name: str | None) -> None:
    assert Version.parse(name) is None


@given(st.text(max_size=70))
def test_a_name_never_leaves_its_folder(text: str) -> None:
    if is_name(text):
        assert set(text) <= {*string.ascii_letters, *string.digits, *"._-"}
        assert Path("/home/runs", text).resolve().parent == Path("/home/runs")


@pytest.mark.parametrize(("name", "base"), [("base", "smollm2-135m"), ("smollm2-135m", "smollm2-135m"), ("model", "model")])
def test_a_name_that_means_the_untrained_base_is_no_models(name: str, base: str) -> None:
    with pytest.raises(InputError) as caught:
        check_model_name(name, base)
    assert caught.value.reason == "reserved_name"
    assert check_model_name("smollm2-135m", "another") == "smollm2-135m"
