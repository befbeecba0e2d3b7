"""The methods of `journeyman train FILE.yaml`: which settings each has, reading them from a file, and their JSON schema for editors.

Not for what a method does: each has a program of its own (`grpo.py`, `sft.py`, `dpo.py`, `mcp.py`).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel

from journeyman.config import checked, merged, overridden, path_of, read_yaml
from journeyman.errors import InputError, SettingError
from journeyman.recipes.settings import CONFIGS, OF_RUN, OF_SOURCE, DpoTrain, GrpoTrain, McpTrain, SftTrain
from journeyman.types.names import BASE
from journeyman.types.record import Record


class McpFile(McpTrain):
    """The settings of `journeyman mcp train` in a file that names its method."""

    method: Literal["mcp"] = "mcp"

    def without_method(self) -> McpTrain:
        """What the MCP recipe takes."""
        return McpTrain.model_validate(self.model_dump(exclude={"method"}))


Settings = GrpoTrain | SftTrain | DpoTrain | McpFile

METHODS: Final[Mapping[str, type[Settings]]] = {"grpo": GrpoTrain, "sft": SftTrain, "dpo": DpoTrain, "mcp": McpFile}
SCHEMA_FILE: Final = "schema.json"


def find_file(name: Path) -> Path:
    """A settings file by its path, or a shipped one by its name. Raises InputError, naming those that are shipped."""
    name = path_of(name)
    if name.is_file():
        return name
    shipped = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}
    if name.parent == Path() and name.suffix in ("", ".yaml", ".yml") and name.stem in shipped:
        return shipped[name.stem]
    what = "is a folder" if name.is_dir() else "does not exist"
    hint = f"give the path of a settings file, or a shipped one: {', '.join(f'{stem}.yaml' for stem in shipped)}"
    raise InputError(f"{name} {what}", hint=hint, reason="no_file")


def load_recipe(path: Path, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None) -> Settings:
    """The settings in a file, changed by `overrides` (`grpo.learning_rate=2e-4`), changed by `given`. Its `method` says which they are.

    A file without a `name` names the model after itself. A file of tasks or data that is not in the current folder but beside the settings
    file is that one. Raises SettingError as `config.load_settings`, and for a method there is none of.
    """
    data = layered(read_yaml(path), overridden({}, overrides), given or {})
    kind = METHODS[_method(data.get("method"), str(path))]
    names = {} if "name" in data or "name" not in kind.model_fields else {"name": name_of(path)}
    return checked(kind, merged(merged(names, data), _beside(data, path.parent.absolute())), str(path))


def layered(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of several sources, a later one over those before it. One that says where examples come from (`data.source`,
    `data.from_run`) replaces what the earlier ones say of the other place.

    Example:
        >>> layered({"data": {"source": "a.jsonl", "format": "text", "num_heldout": 4}}, {"data": {"from_run": "first"}})
        {'data': {'num_heldout': 4, 'from_run': 'first'}}
    """
    found: dict[str, Any] = {}
    for source in sources:
        data, above = found.get("data"), source.get("data")
        if isinstance(data, Mapping) and isinstance(above, Mapping):
            has_source, has_run = (above.get(name) is not None for name in ("source", "from_run"))
            replaced = () if has_source == has_run else OF_RUN if has_source else OF_SOURCE
            found = found | {"data": {name: value for name, value in data.items() if name not in replaced}}
        found = merged(found, source)
    return found


def method_of(path: Path, overrides: Sequence[str] = ()) -> str:
    """The method that a file is for. Raises SettingError."""
    return _method(overridden(read_yaml(path), overrides).get("method"), str(path))


def file_settings(path: Path) -> dict[str, Any]:
    """What a file says, unchecked, with the paths in it that lead somewhere from the file only made absolute."""
    data = read_yaml(path)
    return merged(data, _beside(data, path.parent.absolute()))


def recipe_settings(method: str, data: Mapping[str, Any]) -> Settings:
    """The settings of a method from a run's own record of them. Raises SettingError."""
    return checked(METHODS[_method(method, "the run")], data)


def name_of(path: Path) -> str:
    """A model name from a file's: `My recipe.yaml` is `my-recipe`; none that means the base model."""
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40]
    return "model" if name in ("", BASE) else name


def schema(method: str | None = None) -> dict[str, Any]:
    """The JSON schema of a method's file; of all methods when None. Raises SettingError for an unknown one."""
    if method is not None:
        return {"$schema": _DRAFT, **_with_short_forms(METHODS[_method(method, "--schema")].model_json_schema())}
    variants: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for name, kind in METHODS.items():
        found = _with_short_forms(kind.model_json_schema(ref_template="#/$defs/{model}"))
        definitions |= found.pop("$defs", {})
        # In a file that is checked against all methods, the method decides: it must be there.
        variants.append({**found, "required": [*found.get("required", []), "method"], "title": f"method: {name}"})
    return {"$schema": _DRAFT, "title": "journeyman train FILE.yaml", "oneOf": variants, "$defs": definitions}


def schema_text() -> str:
    """What `configs/schema.json` holds."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def keys_of(kind: type[BaseModel]) -> set[str]:
    """Every key that a file of these settings may hold a value under, by dotted name; those of a choice's variants count once.

    A key of a single possible value (the nested `grpo.method`) is none.

    Example:
        >>> from journeyman.types.settings import LoraSettings
        >>> sorted(keys_of(LoraSettings))
        ['alpha', 'rank', 'seed']
    """
    return _keys([kind], "")


_PATHS = ("scenarios", "data.source", "data.heldout_source")
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _method(given: object, where: str) -> str:
    if isinstance(given, str) and given in METHODS:
        return given
    known = ", ".join(METHODS)
    if given is None:
        raise SettingError(
            f"{where}: `method` is missing", hint=f"say what to do, e.g. method: grpo; there are {known}", reason="no_method"
        )
    nearest = difflib.get_close_matches(str(given), METHODS, n=1, cutoff=0.3)
    advice = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise SettingError(f"{where}: there is no method {given!r}{advice}", hint=f"there are {known}", reason="no_method")


def _with_short_forms(found: dict[str, Any]) -> dict[str, Any]:
    """The schema with what settings also take: `loss: gspo` for `loss: {kind: gspo}`, and a loss's own parameters beside it."""
    definitions = found["$defs"]
    for record in definitions.values():
        properties = record.get("properties", {})
        for name, choice in list(properties.items()):
            kinds = choice.get("discriminator", {}).get("mapping", {})
            if not kinds:
                continue
            whole = {key: choice.pop(key) for key in ("oneOf", "discriminator")}
            choice["anyOf"] = [{"enum": list(kinds)}, whole]
            parts = [definitions[ref.rpartition("/")[2]]["properties"] for ref in kinds.values()] if name == "loss" else []
            for part in parts:
                for parameter, form in part.items():
                    # Which loss takes it is checked when the file is read.
                    if parameter != "kind":
                        properties.setdefault(parameter, {key: value for key, value in form.items() if key != "default"})
    return found


def _beside(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The paths in `data` that lead nowhere from here and somewhere from `folder`, made absolute."""
    found: dict[str, Any] = {}
    for name in _PATHS:
        parent, _, key = name.rpartition(".")
        inner = data.get(parent) if parent else data
        value = inner.get(key) if isinstance(inner, Mapping) else None
        # Shipped data is found by its name: no path of this machine gets into the settings of a run.
        if folder != CONFIGS and isinstance(value, str) and not path_of(value).exists() and (folder / value).exists():
            found = merged(found, {parent: {key: str(folder / value)}} if parent else {key: str(folder / value)})
    return found


def _keys(kinds: Sequence[type[BaseModel]], prefix: str) -> set[str]:
    found: set[str] = set()
    for kind in kinds:
        for name, field in kind.model_fields.items():
            inner = _records_in(field.annotation)
            if inner:
                found |= _keys(inner, f"{prefix}{name}.")
            elif prefix == "" or len(kinds) > 1 or len(get_args(field.annotation)) != 1 or get_args(field.annotation)[0] != field.default:
                found.add(f"{prefix}{name}")
    return found


def _records_in(annotation: Any) -> list[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    return [record for argument in get_args(annotation) for record in _records_in(argument)]
