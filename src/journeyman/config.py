"""The one reader of environment variables and configuration files. Everything else is given its settings.

JOURNEYMAN_HOME               where runs are kept                              default: .journeyman in the working folder
JOURNEYMAN_CACHE              where converted base models are kept             default: ~/.cache/journeyman
JOURNEYMAN_ENGINE_PROCESSES   processes that draw tokens; 0: the server's own  default: chosen for this machine
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from journeyman.errors import InputError, SettingError
from journeyman.types.json_text import check_json, well_formed
from journeyman.types.secrets import Secret, checked_key, remember_key
from journeyman.types.text_files import read_text

HOME_VARIABLE = "JOURNEYMAN_HOME"
CACHE_VARIABLE = "JOURNEYMAN_CACHE"
PROCESSES_VARIABLE = "JOURNEYMAN_ENGINE_PROCESSES"

_S = TypeVar("_S", bound=BaseModel)
_SECRET_VARIABLE = re.compile(r"(?i)(key|token|secret|password|passwd|pat|credentials?)$")
_MAX_YAML_VALUES = 100_000  # with every alias written out: messages and records write them out


def home_folder(given: Path | str | None = None) -> Path:
    """The home folder: the one given, or JOURNEYMAN_HOME, or `.journeyman` here. Absolute; it need not exist."""
    return _folder(given, HOME_VARIABLE, Path(".journeyman"))


def cache_folder(given: Path | str | None = None) -> Path:
    """The cache folder: the one given, or JOURNEYMAN_CACHE, or `~/.cache/journeyman`. Absolute; it need not exist."""
    return _folder(given, CACHE_VARIABLE, Path("~/.cache/journeyman"))


def path_of(given: Path | str) -> Path:
    """What a user gave as a path: `~` and the name of a user at its start mean a home folder, every other sign means itself.

    Raises SettingError for one that no system call takes.

    Example:
        >>> path_of("what? 100%20 #1/~x").as_posix()
        'what? 100%20 #1/~x'
    """
    text = os.fspath(given)
    if "\0" in text:
        raise SettingError(f"{text!r} is no path: it has a zero byte", reason="no_path")
    if well_formed(text) != text:
        raise SettingError(
            f"the path {text!a} is not UTF-8",
            hint="rename the file or folder: paths are printed and kept as text",
            reason="no_path",
        )
    path = Path(os.path.expanduser(text))
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise SettingError(f"{text[:80]!r}… is no path: {len(text)} characters are too long for one", reason="no_path") from error
    return path


def engine_processes(given: int | None = None) -> int | None:
    """The number given, or JOURNEYMAN_ENGINE_PROCESSES, or None: to be chosen. Raises SettingError for text that is no number."""
    text = environment(PROCESSES_VARIABLE)
    if given is not None or text is None:
        return given
    try:
        return int(text)
    except ValueError as error:
        raise SettingError(f"{PROCESSES_VARIABLE} must be a whole number, not {text!r}", hint="0 draws in the server's process") from error


def environment(name: str) -> str | None:
    """An environment variable, None when it is unset or empty. Raises SettingError when it is no text."""
    value = os.environ.get(name) or None
    try:
        check_json(value)
    except InputError as error:
        # Without the error's text: it quotes the value, which may be a key.
        raise SettingError(f"the environment variable {name} is not UTF-8", hint="set it again", reason=error.reason) from None
    return value


def remember_environment() -> None:
    """Hide the values of variables that hold a key, a token or a password, by their names, wherever they would be shown."""
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            remember_key(value)


def environment_key(name: str) -> str | None:
    """A key from the environment, None when it is unset or empty. Raises SettingError as `checked_key`."""
    value = environment(name)
    return None if value is None else checked_key(value, name)


def check_hub_token() -> None:
    """Raise SettingError (malformed_key) before the Hugging Face libraries mend or send what is set: they say neither."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        environment_key(name)


def program() -> str:
    """How the user's shell starts this `journeyman`, as one word: by its name where the search path leads to it, unless it lies below the
    working folder; there by its relative path, since a Makefile may have put that folder on the search path for itself alone."""
    executable = _executable()
    if executable is None:
        return "journeyman"
    here = Path.cwd()
    if executable.is_relative_to(here):
        return shlex.quote(str(executable.relative_to(here)))
    on_path = shutil.which("journeyman")
    return "journeyman" if on_path is not None and Path(on_path).absolute() == executable else shlex.quote(str(executable))


def command_line(*words: str | Path) -> str:
    """A `journeyman` command that works when it is copied into the user's shell: every command that is printed comes from here."""
    return " ".join((program(), *(shlex.quote(str(word)) for word in words)))


def _executable() -> Path | None:
    """The script that was started, else the one beside this Python; None when there is none. Links are left as they are."""
    started = Path(sys.argv[0]).absolute()
    beside = Path(sys.executable).absolute().parent / "journeyman"
    candidates = [started] if started.stem == "journeyman" else []
    return next((path for path in (*candidates, beside) if path.is_file()), None)


def load_settings(
    kind: type[_S],
    path: Path | None = None,
    overrides: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
) -> _S:
    """Settings from a YAML file, changed by `overrides` (`grpo.learning_rate=2e-4`), changed by `given`.

    A later source wins, key by key. Values are checked by `kind`.

    Raises:
        SettingError: the file cannot be read; a key is unknown (the nearest valid one is named); a value does not fit.

    Example:
        >>> from journeyman.types.settings import Grpo
        >>> load_settings(Grpo, overrides=["adam.beta2=0.95"]).adam.beta2
        0.95
    """
    data = merged(overridden({} if path is None else read_yaml(path), overrides), given or {})
    return checked(kind, data, "the settings" if path is None else str(path))


def checked(kind: type[_S], data: Mapping[str, Any], where: str = "the settings") -> _S:
    """`data` as settings of `kind`. Raises SettingError, which says `where` they are from and names the nearest of an unknown key."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        problems = [_problem(kind, entry["loc"], entry["type"], entry["msg"], entry["input"]) for entry in error.errors()]
        raise SettingError(f"{where}: " + "; ".join(problems)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping; an empty file is an empty mapping. Raises SettingError."""
    try:
        text = read_text(path)
    except InputError as error:
        raise SettingError(error.message, hint=error.hint, reason=error.reason) from error
    data = _parse_yaml(text, str(path), hint="settings are written as `name: value`, indented with spaces")
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingError(f"{path} must hold settings as `name: value`; it holds a {type(data).__name__}")
    return data


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """`a.b=value` as (("a", "b"), value); the value is read as YAML, so 3, true, null, [1, 2] and text all work.

    Raises SettingError.

    Example:
        >>> parse_override("grpo.learning_rate=2e-4")
        (('grpo', 'learning_rate'), 0.0002)
    """
    name, equals, value = text.partition("=")
    keys = tuple(name.strip().split("."))
    if not equals or not all(keys):
        raise SettingError(f"cannot read the setting {name.partition(':')[0].strip()!r}", hint="write it as name=value or part.name=value")
    parsed = _parse_yaml(value, f"the value of {name.strip()!r}", hint="put quotes around text with special signs")
    return keys, _number(parsed) if isinstance(parsed, str) else parsed


def overridden(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Settings changed by overrides such as `grpo.learning_rate=2e-4`, the later ones last. Raises SettingError.

    Example:
        >>> overridden({"grpo": {"updates": 1}}, ["grpo.updates=2", "steps=3"])
        {'grpo': {'updates': 2}, 'steps': 3}
    """
    out = dict(data)
    for text in overrides:
        keys, value = parse_override(text)
        out = merged(out, _nested(keys, value))
    return out


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings are merged, everything else is replaced."""
    out = dict(below)
    for key, value in above.items():
        before = out.get(key)
        out[key] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return out


def _folder(given: Path | str | None, variable: str, default: Path) -> Path:
    chosen = given if given is not None else (environment(variable) or default)
    return path_of(chosen).absolute()


def _parse_yaml(text: str, what: str, *, hint: str) -> Any:
    """What a YAML text says. Raises SettingError: no_yaml, repeated_key, no_name, too_deep, too_many_aliases, half_surrogate,
    number_too_large."""
    import yaml

    try:
        data = yaml.safe_load(text)
        check_json(data)
        written = yaml.compose(text, yaml.SafeLoader)
    except _yaml_errors() as error:
        raise SettingError(f"{what} is not YAML: {_yaml_problem(error)}", hint=hint, reason="no_yaml") from error
    except RecursionError as error:
        raise SettingError(f"{what} is nested too deep", hint="make it flatter", reason="too_deep") from error
    except InputError as error:
        raise SettingError(f"{what}: {error.message}", hint=error.hint, reason=error.reason) from error
    if _size(data, {}) > _MAX_YAML_VALUES:
        raise SettingError(f"{what} has more than {_MAX_YAML_VALUES} values", hint="write fewer aliases (*name)", reason="too_many_aliases")
    _refuse_repeated(what, written)
    _refuse_other_names(what, data)
    return data


def _yaml_errors() -> tuple[type[Exception], ...]:
    """What the library raises for a text that it cannot read."""
    import yaml

    # ValueError: a date or a number that there is not. The others: a tag (`!!bool x`) on a text that is no such thing.
    return (yaml.YAMLError, ValueError, OverflowError, AttributeError, KeyError)


def _refuse_other_names(what: str, value: object) -> None:
    """The name of a setting is a text: YAML takes `on`, `5` and `null` for something else."""
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise SettingError(f"{what}: the name {name!r} is no text", hint="put quotes around it", reason="no_name")
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _refuse_other_names(what, part)


def _size(value: object, known: dict[int, int]) -> int:
    """How many values there are when every alias is written out; `known`: of containers seen before."""
    if not isinstance(value, Mapping | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 1 + sum(_size(part, known) for part in (value.values() if isinstance(value, Mapping) else value))
    return known[id(value)]


def _yaml_problem(error: Exception) -> str:
    """What is wrong, and in which line, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return where + str(getattr(error, "problem", None) or error)


def _refuse_repeated(what: str, node: Any) -> None:
    """YAML takes the last of two equal keys without a word; a setting that is written is never ignored."""
    if node is not None and node.id == "sequence":
        for part in node.value:
            _refuse_repeated(what, part)
    pairs = node.value if node is not None and node.id == "mapping" else []
    seen: set[str] = set()
    for key, value in pairs:
        if str(key.value) in seen:
            raise SettingError(
                f"{what}, line {key.start_mark.line + 1}: {key.value!r} is set twice", hint="keep one of them", reason="repeated_key"
            )
        seen.add(str(key.value))
        _refuse_repeated(what, value)


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]  # keys is never empty


def _number(text: str) -> float | str:
    # YAML 1.1 takes 2e-4 for text; nobody who writes it in a setting means text.
    try:
        return float(text) if "e" in text.lower() and text[:1] in "+-.0123456789" and text else text
    except ValueError:
        return text


def _problem(kind: type[BaseModel], location: Sequence[int | str], error: str, message: str, value: object) -> str:
    name = ".".join(_without_tags(kind, location))
    given = "" if _may_hold_secret(kind, location) else f" (given: {value!r})"
    if error == "union_tag_not_found":
        return f"{name}: `kind` is missing: it says which choice these settings are of{given}"
    if error != "extra_forbidden":
        return f"{name or 'settings'}: {message[:1].lower()}{message[1:]}{given}"
    known = sorted(_fields_at(kind, location[:-1]))
    nearest = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    advice = f"did you mean {nearest[0]!r}?" if nearest else f"known here: {', '.join(known)}"
    return f"unknown setting {name!r}; {advice}"


def _may_hold_secret(kind: type[BaseModel], location: Sequence[int | str]) -> bool:
    """Whether what is at a location, or below it, may be a secret by its type."""
    models: list[type[BaseModel]] = [kind]
    annotations: list[Any] = [kind]
    for part in location:
        inner = [model.model_fields[str(part)].annotation for model in models if str(part) in model.model_fields]
        if inner:
            annotations = list(inner)
            models = [model for annotation in inner for model in _models_in(annotation)]
    return any(_names_secret(annotation) for annotation in annotations)


def _names_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_names_secret(field.annotation) for field in annotation.model_fields.values())
    return annotation is Secret or any(_names_secret(argument) for argument in get_args(annotation))


def _without_tags(kind: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The location as it is written in a file: pydantic also names the variant of a choice that it looked into."""
    names, models = [], [kind]
    for index, part in enumerate(location):
        inner = [model.model_fields[str(part)].annotation for model in models if str(part) in model.model_fields]
        if not inner and len(models) > 1 and index < len(location) - 1:
            continue
        names.append(str(part))
        models = [model for annotation in inner for model in _models_in(annotation)]
    return names


def _fields_at(kind: type[BaseModel], location: Iterable[int | str]) -> set[str]:
    """Names that the models which `location` can lead to take (several in a union)."""
    models: list[type[BaseModel]] = [kind]
    for part in location:
        inner = [model.model_fields[str(part)].annotation for model in models if str(part) in model.model_fields]
        # A part that is no field is an index, or the tag of a union: the models stay.
        if inner:
            models = [model for annotation in inner for model in _models_in(annotation)]
    # A record may take settings of its parts by their own names too (`Dpo(beta=0.2)` for `Dpo(loss={"beta": 0.2})`).
    return {name for model in models for name in (*model.model_fields, *getattr(model, "short_forms", ()))}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
