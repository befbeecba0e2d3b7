"""Rows from the `datasets` library: data sets of the Hugging Face hub, and folders that the library wrote. Imported when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.config import check_hub_token, environment
from journeyman.data.rows import Row
from journeyman.errors import InputError
from journeyman.http_clients import HUB_URL, proxy_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_SAVED_MARKS = ("dataset_dict.json", "state.json")


def is_saved_dataset(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote this folder."""
    return any((folder / mark).is_file() for mark in _SAVED_MARKS)


def read_saved(folder: Path, split: str | None) -> Iterator[Row]:
    """The rows of a folder that `Dataset.save_to_disk` wrote."""
    datasets = _library(str(folder))
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} cannot be read as a saved data set: {error}") from error
    yield from _rows(_split_of(found, split, str(folder)), folder.name)


def read_hub(name: str, split: str | None) -> Iterator[Row]:
    """The rows of `ORG/NAME` or `ORG/NAME:SUBSET`, from the cache of the `datasets` library or downloaded into it."""
    if environment("HF_HUB_OFFLINE") is None:
        check_hub_token()
        proxy_of(environment("HF_ENDPOINT") or HUB_URL)  # refuses one that cannot be used
    datasets = _library(name)
    repository, _, subset = name.partition(":")
    try:
        found = datasets.load_dataset(repository, subset or None, split=None)
    # A data set that cannot be reached is an OSError, an unknown subset a ValueError.
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"there is no file or folder {name}, and the data set {repository} could not be had from the Hugging Face hub: {error}",
            hint="check the name and the network; offline (HF_HUB_OFFLINE=1) only data sets that are in the cache can be read",
        ) from error
    except ValueError as error:
        raise InputError(f"the data set {name} cannot be read: {error}", hint="a subset is named ORG/NAME:SUBSET") from error
    yield from _rows(_split_of(found, split, name), name)


def without_nulls(value: Any) -> Any:
    """`value` without the keys whose value is None: Arrow gives every record the keys of all others."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _rows(table: Dataset, source: str) -> Iterator[Row]:
    for number, values in enumerate(table, start=1):
        yield Row(number, without_nulls(values), source)


def _split_of(found: Dataset | DatasetDict, split: str | None, source: str) -> Dataset:
    if not isinstance(found, dict):
        if split is None:
            return found
        raise InputError(f"{source} has no splits, and the split {split!r} was asked for", hint="leave split out")
    chosen = split or ("train" if "train" in found else next(iter(found)) if len(found) == 1 else None)
    if chosen not in found:
        asked = "none of them is named train" if split is None else f"{split!r} was asked for"
        raise InputError(f"{source} has the splits {', '.join(map(str, found))}; {asked}", hint="name one of them: split")
    return found[chosen]


def _library(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"there is no data file {source}, and reading data sets needs the `datasets` library, which is not installed",
            hint='check the path, or: pip install "journeyman[data]"',
        ) from error
    return datasets
