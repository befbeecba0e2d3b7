"""Settings files of all methods: which there are, what is refused, their schema, and how many keys they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from tests.reasons import has_reason

from journeyman.chat.renderer import Renderer
from journeyman.errors import InputError, SettingError
from journeyman.recipes import data as run_data
from journeyman.recipes.methods import METHODS, SCHEMA_FILE, find_file, keys_of, load_recipe, name_of, schema, schema_text
from journeyman.recipes.settings import CONFIGS, GrpoTrain
from journeyman.recipes.train import check

SHIPPED = sorted(CONFIGS.glob("*.yaml"))
MOST_KEYS = 66


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_is_valid_with_its_functions_and_data(
    path: Path, tmp_path: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing of the checkout is needed
    monkeypatch.setattr(run_data, "open_renderer", lambda base: Renderer(tiny_tokenizer, 8192))
    settings = load_recipe(find_file(Path(path.name)))
    assert settings.method in METHODS
    assert check(settings, tmp_path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_names_the_schema_for_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA_FILE}"


def test_the_schema_file_is_fresh() -> None:
    hint = f"write it anew: journeyman train --schema > {CONFIGS / SCHEMA_FILE}"
    assert (CONFIGS / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text(), hint


def test_a_schema_refuses_unknown_keys_and_names_the_method() -> None:
    found = schema("grpo")
    assert found["additionalProperties"] is False
    assert found["properties"]["method"]["const"] == "grpo"
    assert "steps" in found["properties"]
    assert {one["properties"]["method"]["const"] for one in schema()["oneOf"]} == set(METHODS)
    # Every reference leads somewhere.
    named = set(re.findall(r"#/\$defs/(\w+)", json.dumps(schema())))
    assert named <= set(schema()["$defs"])
    with pytest.raises(SettingError, check=has_reason("no_method")):
        schema("grop")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_satisfies_the_schema(path: Path) -> None:
    assert not list(Draft202012Validator(schema()).iter_errors(yaml.safe_load(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("grpo", "is_valid"),
    [
        ({"loss": "gspo"}, True),
        ({"loss": {"kind": "gspo", "clip_high": 0.001}}, True),
        ({"loss": "gspo", "clip_high": 0.001}, True),
        ({"mismatch": "token_mask", "adam": {"beta2": 0.95}}, True),
        ({"loss": "gsp"}, False),
        ({"learning_rat": 1e-4}, False),
        ({"learning_rate": 0}, False),
    ],
)
def test_the_schema_takes_what_settings_take(grpo: dict[str, object], is_valid: bool, tmp_path: Path) -> None:
    data = {"method": "grpo", "scenarios": "a.b", "rewards": {"a.c": 1}, "grpo": grpo}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(data))
    for whole in (schema(), schema("grpo")):
        assert Draft202012Validator(whole).is_valid(data) == is_valid
    if is_valid:
        assert load_recipe(tmp_path / "a.yaml").method == "grpo"
    else:
        with pytest.raises(SettingError):
            load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize("method", [method for method in METHODS if method != "mcp"])
def test_a_method_has_at_most_sixty_six_keys(method: str) -> None:
    keys = keys_of(METHODS[method])
    print(f"{method}: {len(keys)} keys")
    assert len(keys) <= MOST_KEYS, f"{method} has {len(keys)} keys: {sorted(keys)}"


def test_keys_are_counted_through_nested_settings_and_choices() -> None:
    keys = keys_of(GrpoTrain)
    assert {"method", "grpo.learning_rate", "grpo.adam.beta1", "grpo.loss.kind", "grpo.loss.clip_low", "judge.model"} <= keys
    assert "grpo.method" not in keys
    assert "grpo.loss" not in keys


def test_a_file_is_found_by_its_path_or_as_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_file(Path("mcp.yaml")) == find_file(Path("mcp")) == CONFIGS / "mcp.yaml"
    Path("mcp.yaml").write_text("method: mcp")
    assert find_file(Path("mcp.yaml")) == Path("mcp.yaml")
    with pytest.raises(InputError, match=r"other/mcp\.yaml does not exist") as caught:
        find_file(Path("other/mcp.yaml"))
    assert "yes_no_maybe.yaml" in str(caught.value.hint)
    with pytest.raises(InputError, check=has_reason("no_file")):
        find_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 3", "`method` is missing"),
        ("method: grop", "did you mean 'grpo'"),
        ("method: [grpo]", "there is no method"),
        ("method: grpo\nstepz: 3", "unknown setting 'stepz'; did you mean 'steps'"),
        ("method: grpo\ngrpo: {adam: {beta_1: 0.9}}", "unknown setting 'grpo.adam.beta_1'; did you mean 'beta1'"),
        ("method: dpo\ndata: {source: a}\ndpo: {gama: 1}", "unknown setting 'dpo.gama'; did you mean 'gamma'"),
        ("method: dpo\ndata: {source: a}\ndpo: {bta: 1}", "unknown setting 'dpo.bta'; did you mean 'beta'"),
        ("method: grpo\ngrpo: {clip_hi: 1}", "unknown setting 'grpo.clip_hi'; did you mean 'clip_high'"),
        ("method: grpo\ngrpo: {loss: {kind: gspo, clip_hihg: 1}}", "unknown setting 'grpo.loss.clip_hihg'; did you mean 'clip_high'"),
        ("method: grpo\ngrpo: {loss: {clip_high: 1}}", "grpo.loss: `kind` is missing"),
        ("method: grpo\nsteps: many", r"steps: .*\(given: 'many'\)"),
        ("method: grpo\nrewards: {a.b: x}", r"rewards.a.b: .*\(given: 'x'\)"),
        ("method: grpo\nsteps: 3", "scenarios: field required"),
        ("method: grpo\nsteps: 3\nsteps: 4", "line 3: 'steps' is set twice"),
        ("method: grpo\ngrpo:\n  updates: 3\n  updates: 4", "line 4: 'updates' is set twice"),
        ("method: grpo\nrollout: {system: 'x\n", "is not YAML: line 3"),
    ],
)
def test_a_faulty_file_is_refused_with_what_to_change(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SettingError, match=said):
        load_recipe(path)


def test_later_sources_win_and_a_model_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "My Recipe.yaml"
    path.write_text("method: grpo\nscenarios: a.b\nrewards: {a.c: 1}\nseed: 1\nsteps: 3\ngrpo: {learning_rate: 2e-4}\n")
    settings = load_recipe(path, ["seed=2", "grpo.updates=2", "lora.rank=4"], {"seed": 3})
    assert isinstance(settings, GrpoTrain)
    assert (settings.name, settings.seed, settings.steps) == ("my-recipe", 3, 3)
    assert (settings.grpo.learning_rate, settings.grpo.updates, settings.lora.rank) == (2e-4, 2, 4)
    assert load_recipe(path, ["name=other"]).model_dump()["name"] == "other"
    assert name_of(Path("???.yaml")) == "model"
