from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.cli import train as train_command
from journeyman.cli.app import run
from journeyman.cli.options import TargetOptions, target_of_run
from journeyman.cli.train import TrainRequest, new_mcp_settings, resumed_mcp_settings
from journeyman.config import command_line
from journeyman.errors import McpError, SettingError, StoreError
from journeyman.mcp.target import McpTarget
from journeyman.recipes import mcp as recipe
from journeyman.recipes.resume import accept_settings, changed_settings
from journeyman.recipes.settings import CONFIGS, McpTrain
from journeyman.store.checkpoints import Checkpoints
from journeyman.store.store import Store
from journeyman.types.runs import StepMetrics


def request(home: Path, **given: Any) -> TrainRequest:
    target = TargetOptions(*(given.pop(name, None) for name in ("server", "url", "headers", "env")))
    return TrainRequest(home, target=target, **given)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with one stopped run of two steps."""
    settings = McpTrain(target=McpTarget.parse("some-server"), steps=2, seed=7)
    with Store.open(tmp_path / "home") as store:
        store.runs.create("one", kind="mcp", base=settings.base, settings=settings.model_dump(mode="json"))
        store.runs.update("one", state="stopped")
        store.runs.create("other", kind="model", base=settings.base)
    return tmp_path / "home"


def test_options_win_over_set_and_set_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "time.yaml"
    file.write_text("steps: 1\nseed: 1\nnum_heldout: 8\n")
    asked = request(tmp_path, server="some-server --fast", file=file, overrides=("seed=2", "steps=2"), given={"steps": 3})
    settings = new_mcp_settings(asked)
    assert (settings.steps, settings.seed, settings.num_heldout) == (3, 2, 8)
    assert settings.target.command == ("some-server", "--fast")


def test_the_server_may_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "time.yaml"
    file.write_text("target: {url: 'http://localhost:1/mcp'}\n")
    assert new_mcp_settings(request(tmp_path, file=file)).target.url == "http://localhost:1/mcp"
    with pytest.raises(SettingError) as caught:
        new_mcp_settings(request(tmp_path, file=file, headers=["A: b"]))
    assert caught.value.reason == "no_target"


def test_a_file_that_names_its_method_is_taken_and_one_of_another_method_is_sent_to_its_command(tmp_path: Path, home: Path) -> None:
    settings = new_mcp_settings(request(tmp_path, file=CONFIGS / "mcp.yaml"))
    assert settings.target.command == ("python", "-m", "mcp_server_time")
    file = tmp_path / "steps.yaml"
    file.write_text("method: mcp\nsteps: 5\n")
    assert resumed_mcp_settings(request(home, file=file), "one").steps == 5
    with pytest.raises(SettingError) as caught:
        new_mcp_settings(request(tmp_path, file=CONFIGS / "sft.yaml"))
    assert caught.value.reason == "other_method"
    assert command_line("train", CONFIGS / "sft.yaml") in str(caught.value.hint)


def test_an_unknown_setting_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="learning_rate"):
        new_mcp_settings(request(tmp_path, server="some-server", overrides=("grpo.learning_rat=1e-4",)))


def with_a_newer_setting(home: Path, *, formats_ahead: int) -> None:
    """As if a newer version had made the run: with a setting that this one does not know, and a checkpoint."""
    with Store.open(home) as store:
        store.runs.update("one", settings=store.runs.get("one").settings | {"foresight": 3})
        saved = Checkpoints(store.home.run("one").checkpoints).save(1, lambda _: None)
    manifest = saved.folder / "checkpoint.json"
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(written | {"format": written["format"] + formats_ahead, "version": "9.9.9"}))


def test_a_run_of_a_newer_version_is_refused_for_its_version_before_its_settings(home: Path) -> None:
    with_a_newer_setting(home, formats_ahead=1)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"9\.9\.9") as caught:
            resumed_mcp_settings(request(home), "one")
        assert "9.9.9" in str(caught.value.hint)
    with Store.open(home) as store, pytest.raises(StoreError, match=r"9\.9\.9"):
        changed_settings(store, "one", McpTrain(target=McpTarget.parse("some-server")), are_allowed=True)


def test_settings_that_only_another_version_knows_are_named_with_that_version(home: Path) -> None:
    with_a_newer_setting(home, formats_ahead=0)
    with pytest.raises(SettingError, match=r"foresight: .*9\.9\.9"):
        resumed_mcp_settings(request(home), "one")
    with Store.open(home) as store, pytest.raises(SettingError, match="foresight"):
        changed_settings(store, "one", McpTrain(target=McpTarget.parse("some-server")), are_allowed=True)


def test_a_resumed_run_keeps_its_settings_and_only_steps_may_change(home: Path) -> None:
    settings = resumed_mcp_settings(request(home, given={"steps": 5}), "one")
    assert (settings.steps, settings.seed) == (5, 7)
    assert settings.target.command == ("some-server",)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"given": {"judge": "openai/x"}}, "judge: evidence -> openai/x"),
        ({"overrides": ("grpo.updates=2",)}, "grpo.updates: 1 -> 2"),
        ({"server": "another"}, "target.command"),
    ],
)
def test_changed_settings_beside_resume_are_shown_and_refused_unless_allowed(home: Path, given: dict[str, Any], shown: str) -> None:
    with pytest.raises(SettingError) as caught:
        resumed_mcp_settings(request(home, **given), "one")
    assert shown in caught.value.message
    assert "--allow-changed-settings" in str(caught.value.hint)
    settings = resumed_mcp_settings(request(home, **given, allow_changed=True), "one")
    with Store.open(home) as store:
        assert [shown in str(change) for change in accept_settings(store, "one", settings, are_allowed=True)] == [True]
    # From now on they are the run's own.
    assert resumed_mcp_settings(request(home), "one") == settings


def test_a_resume_with_settings_that_came_too_late_is_refused_even_when_allowed(home: Path) -> None:
    with pytest.raises(SettingError, match="seed: 7 -> 1"):
        resumed_mcp_settings(request(home, given={"seed": 1}, allow_changed=True), "one")
    drills = resumed_mcp_settings(request(home, overrides=("warm_start.max_updates=1",), allow_changed=True), "one")
    assert drills.warm_start.max_updates == 1
    with Store.open(home) as store:
        accept_settings(store, "one", drills, are_allowed=True)
        store.runs.add_step(StepMetrics(run="one", phase="train", step=1, time=0.0, metrics={}))
    again = request(home, overrides=("warm_start.max_updates=2",), allow_changed=True)
    with pytest.raises(SettingError, match=r"warm_start\.max_updates"):
        resumed_mcp_settings(again, "one")


def test_settings_that_are_as_they_were_may_be_given_to_a_resume(home: Path) -> None:
    assert resumed_mcp_settings(request(home, server="some-server", overrides=("seed=7",)), "one").seed == 7


class TestSecrets:
    """A run keeps references to the environment; what was given in clear must be given again, and is no other setting."""

    SERVER = "some-server --token ${NUMBERS}"

    @pytest.fixture
    def kept(self, home: Path) -> Path:
        target = TargetOptions(self.SERVER, env=["PASSWORD=Bearer ${NUMBERS}", "OTHER=in-clear"]).target()
        settings = McpTrain(target=target, steps=2)
        with Store.open(home) as store:
            store.runs.create("kept", kind="mcp", base=settings.base, settings=settings.model_dump(mode="json"))
        return home

    def test_a_reference_is_kept_and_followed_when_the_run_goes_on(self, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for value in ("first-value", "second-value"):
            monkeypatch.setenv("NUMBERS", value)
            revealed = resumed_mcp_settings(request(kept, env=["OTHER=again"]), "kept").target.revealed()
            assert revealed.command == ("some-server", "--token", value)
            assert revealed.env == {"PASSWORD": f"Bearer {value}", "OTHER": "again"}

    def test_what_was_given_in_clear_or_is_not_set_any_more_is_named(self, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NUMBERS", "a-value")
        with pytest.raises(SettingError) as caught:
            resumed_mcp_settings(request(kept), "kept")
        assert (caught.value.reason, "OTHER" in caught.value.message) == ("secret_missing", True)
        monkeypatch.delenv("NUMBERS")
        with pytest.raises(SettingError) as caught:
            resumed_mcp_settings(request(kept, env=["OTHER=again"]), "kept")
        assert (caught.value.reason, "NUMBERS" in caught.value.message) == ("secret_not_set", True)

    @pytest.mark.parametrize("server", ["some-server --token in-clear", "some-server --token ${ANOTHER}"])
    def test_another_secret_is_no_other_server_and_names_no_other_model(
        self, kept: Path, server: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NUMBERS", "a-value")
        monkeypatch.setenv("ANOTHER", "b-value")
        settings = resumed_mcp_settings(request(kept, server=server, env=["OTHER=again"]), "kept")
        assert recipe.slug(settings) == recipe.slug(McpTrain(target=McpTarget.parse(self.SERVER)))
        with Store.open(kept) as store:
            assert accept_settings(store, "kept", settings, are_allowed=False) == ()
            assert "again" not in json.dumps(store.runs.get("kept").settings)

    @pytest.mark.parametrize("given", [{"server": "some-server --token x --more"}, {"env": ["OTHER=again", "NEW=x"]}])
    def test_another_server_is_still_refused(self, kept: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NUMBERS", "a-value")
        with pytest.raises(SettingError, match="allow-changed-settings"):
            resumed_mcp_settings(request(kept, **given), "kept")

    def test_an_evaluation_takes_the_secrets_again_and_no_other_server(self, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NUMBERS", "a-value")
        assert target_of_run("kept", kept, TargetOptions(env=["OTHER=again"])).revealed().env["OTHER"] == "again"
        with pytest.raises(SettingError) as caught:
            target_of_run("kept", kept, TargetOptions(server="another-server"))
        assert caught.value.reason == "other_target"


def test_a_run_of_another_program_is_not_resumed(home: Path) -> None:
    with pytest.raises(SettingError) as caught:
        resumed_mcp_settings(request(home), "other")
    assert caught.value.reason == "other_program"


@pytest.mark.parametrize("is_registered", [True, False])
@pytest.mark.parametrize(("ending", "code"), [(KeyboardInterrupt(), 130), (McpError("died", "the server died"), 1)])
def test_the_way_on_is_the_run_that_was_stopped_and_nothing_when_there_is_none(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_registered: bool, ending: BaseException, code: int
) -> None:
    begun = []

    async def stopped(settings: McpTrain, view: object, *, home: Path, run: str, **given: object) -> None:
        begun.append(run)
        with Store.open(home) as store:
            if is_registered:
                store.runs.create(run, kind="mcp", base=settings.base)
            # Another run that is newer and unfinished is not what was stopped.
            store.runs.create("newest", kind="mcp", base=settings.base)
        raise ending

    monkeypatch.setattr(recipe, "train", stopped)
    assert run(["mcp", "train", "--server", "some-server", "--home", str(home)]) == code
    shown = capsys.readouterr().err
    assert begun[0].startswith("some-")
    assert ("--resume" in shown) is is_registered
    assert (command_line("mcp", "train", "--resume", begun[0], "--home", home) in shown) is is_registered


def test_options_reach_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainRequest] = []
    monkeypatch.setattr(train_command, "run_mcp_recipe", asked.append)
    words = ["mcp", "train", "--server", "some-server", "--env", "A=b", "--tools", "one, two", "--allow-writes", "--steps", "4"]
    assert run([*words, "--seed", "0", "--judge", "openai/x", "--set", "grpo.clip_low=0.1", "--home", str(tmp_path)]) == 0
    settings = new_mcp_settings(asked[0])
    assert settings.tools == ("one", "two")
    assert (settings.allow_writes, settings.steps, settings.seed, settings.judge) == (True, 4, 0, "openai/x")
    assert settings.target.revealed().env == {"A": "b"}
    assert settings.grpo.loss.clip_low == 0.1


def test_a_server_that_does_not_exist_is_an_error_with_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mcp", "train", "--server", "no-such-server-anywhere", "--home", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "no-such-server-anywhere" in shown
    assert "what to do:" in shown
