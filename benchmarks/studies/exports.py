"""The study of exports: one run in every format, each loaded again, the GGUF files in llama.cpp too; a row a format.

    python -m benchmarks.study export                               a run of sft.yaml is trained first, once
    python -m benchmarks.study export --run RUN --home HOME         another run that is there
    python -m benchmarks.study export --vllm VLLM/bin/python        adapters and merged models in a real vLLM too (in_vllm.py)
    python -m benchmarks.study export --show                        the table

A format that has a row of the same version is not made again, unless it is not yet checked in the vLLM that is named.
Not for what an export consists of: see `journeyman.export`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from benchmarks.studies.in_vllm import IN_VLLM, compare_in_vllm, require_vllm
from benchmarks.studies.lines import LineFile
from journeyman.errors import JourneymanError, SettingError, WaitTimeoutError
from journeyman.export.gguf_check import HOW_TO_GET, IN_LLAMA_CPP, is_available
from journeyman.export.settings import ExportSettings
from journeyman.recipes.methods import find_file, load_recipe
from journeyman.store.store import Store
from journeyman.types.record import Record

if TYPE_CHECKING:
    from journeyman.export.export import Exported
    from journeyman.store.models import AdapterRow

NAME: Final = "export"
FORMATS: Final = {
    one.name: one
    for one in (
        ExportSettings(format="peft"),
        ExportSettings(format="merged"),
        ExportSettings(format="merged", dtype="bfloat16"),
        ExportSettings(format="gguf"),
        ExportSettings(format="gguf", quant="q8_0"),
    )
}
_FILE: Final = "sft.yaml"


class ExportRow(Record):
    """What came of one format.

    Attributes:
        run, version, fingerprint, base: what was exported.
        format: a name of `FORMATS`.
        agreement: the share of the reference's greedy tokens that the export, loaded again, prefers too, of `num_tokens` on `num_probes`.
        num_ties: differences within rounding.
        measured: further shares by name; `IN_LLAMA_CPP` is one of a GGUF file, `IN_VLLM` of the others.
        megabytes: of all files of the export.
        seconds: of writing and checking.
        commit: of the code that ran, with a + when files differed from it.
        error: of an export that was refused.
    """

    run: str
    version: str
    fingerprint: str
    base: str
    format: str
    state: Literal["done", "failed"]
    commit: str
    started_at: str
    seconds: float
    agreement: float | None = None
    num_tokens: int = 0
    num_probes: int = 0
    num_ties: int = 0
    measured: dict[str, float] = Field(default_factory=dict)
    megabytes: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """The run that is exported."""

    home: Path
    run: str


class Exporter:
    """Makes the exports of one run that have no row yet, one after another.

    `folder`: where they are written; each is removed when its row is kept, unless `keeps_weights`. `vllm`: a Python that has vLLM.
    `commit` tells the version of the code; asked for each export.
    """

    def __init__(
        self,
        rows: LineFile[ExportRow],
        folder: Path,
        commit: Callable[[], str],
        *,
        keeps_weights: bool = False,
        vllm: Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._rows = rows
        self._folder = folder
        self._commit = commit
        self._keeps_weights = keeps_weights
        self._vllm = vllm
        self._say = say

    def run(self, subject: Subject, names: Sequence[str]) -> bool:
        """Whether every export was made and agreed. Raises SettingError without llama.cpp, NotFoundError for what is not there."""
        from journeyman.export.version import find_adapter  # torch is behind it: looking at a table needs none

        if not is_available() and any(FORMATS[name].format == "gguf" for name in names):
            raise SettingError("the study checks GGUF files in llama.cpp, which is not installed here", hint=HOW_TO_GET)
        if self._vllm is not None:
            require_vllm(self._vllm)
        with self._rows.alone(), Store.open(subject.home) as store:
            fingerprint = find_adapter(store, subject.run).fingerprint
            made = {row.format for row in self._rows.read() if row.fingerprint == fingerprint and self._is_made(row)}
            missing = [name for name in names if name not in made]
            self._say(f"{NAME}: {len(names)} formats of run {subject.run}, {len(names) - len(missing)} of them made before")
            states = []
            for name in missing:
                row = self._make(store, subject.run, name)
                self._rows.append(row)
                states.append(row.state)
                measured = "".join(f", {how} {share:.1%}" for how, share in row.measured.items())
                told = row.error or f"{row.agreement:.1%} of {row.num_tokens} greedy tokens{measured}, {row.megabytes:.0f} MB"
                self._say(f"[{len(states)}/{len(missing)}] {name}: {row.state} in {row.seconds:.0f} s  {told}")
        return "failed" not in states

    def _is_made(self, row: ExportRow) -> bool:
        is_checked = self._vllm is None or FORMATS[row.format].format == "gguf" or IN_VLLM in row.measured
        return row.state == "done" and is_checked

    def _make(self, store: Store, run: str, name: str) -> ExportRow:
        from journeyman.export.export import export_run
        from journeyman.export.version import find_adapter

        adapter = find_adapter(store, run)
        started, stamp = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = ExportRow(
            run=run,
            version=adapter.name,
            fingerprint=adapter.fingerprint,
            base=store.runs.get(run).base,
            format=name,
            state="failed",
            commit=self._commit(),
            started_at=stamp,
            seconds=0.0,
        )
        try:
            exported = export_run(store, run, FORMATS[name], out=self._folder / name, may_replace=True)
            measured = {how: one.share for how, one in exported.measured.items()} | self._in_vllm(store, adapter, name, exported)
        except JourneymanError as error:
            return row.model_copy(update={"seconds": round(time.monotonic() - started, 1), "error": error.message})
        megabytes = sum(path.stat().st_size for path in exported.folder.rglob("*") if path.is_file()) / 1e6
        if not self._keeps_weights:
            shutil.rmtree(exported.folder)
        found = exported.agreement
        return row.model_copy(
            update={
                "state": "done",
                "seconds": round(time.monotonic() - started, 1),
                "agreement": found.share,
                "num_tokens": found.num_tokens,
                "num_probes": found.num_probes,
                "num_ties": found.num_ties,
                "measured": measured,
                "megabytes": round(megabytes, 1),
            }
        )

    def _in_vllm(self, store: Store, adapter: AdapterRow, name: str, exported: Exported) -> dict[str, float]:
        """Of what vLLM can load, computed there in the type that it was written in. Raises AdapterError when it is another model there."""
        settings = FORMATS[name]
        if self._vllm is None or settings.format == "gguf":
            return {}
        from journeyman.export.check import answer, require_same_model
        from journeyman.export.probes import probe_prompts
        from journeyman.export.version import open_version, served_module

        with open_version(store, adapter) as version:
            prompts = probe_prompts(version.renderer, store, adapter.run)
            probes = answer(served_module(version), prompts, version.renderer.stop_token_ids)
            line, log = exported.commands[-1], self._folder / f"{name}.vllm.log"
            found = compare_in_vllm(self._vllm, line, version.renderer, probes, dtype=settings.dtype, log=log)
        # Other kernels: close choices may fall otherwise, as with rounded weights.
        return {IN_VLLM: require_same_model(found, "bfloat16", IN_VLLM).share}


def trained_subject(home: Path, overrides: Sequence[str], seed: int, command: Sequence[str], timeout_seconds: float) -> Subject:
    """The run of sft.yaml with these settings in `home`: trained now, gone on with where it was stopped, or there already.

    Raises SettingError when the training fails, WaitTimeoutError when it takes too long.
    """
    settings = load_recipe(find_file(Path(_FILE)), overrides, {"seed": seed}).model_dump(mode="json")
    run = f"{NAME}-{seed}-{hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]}"
    home.mkdir(parents=True, exist_ok=True)
    with Store.open(home) as store:
        known = {info.id: info.state for info in store.runs.list()}
    if known.get(run) == "done":
        return Subject(home, run)
    changes = [word for override in overrides for word in ("--set", override)]
    words = ["--resume", run] if run in known else [_FILE, *changes, "--seed", str(seed), "--run", run]
    try:
        code = subprocess.run([*command, "train", *words, "--home", str(home)], check=False, timeout=timeout_seconds).returncode
    except subprocess.TimeoutExpired as error:
        raise WaitTimeoutError(f"training {_FILE} took longer than {timeout_seconds:g} s", hint="give it more with --minutes") from error
    if code != 0:
        raise SettingError(f"there is nothing to export: training {_FILE} ended with code {code}", hint="what it said stands above")
    return Subject(home, run)


def table(rows: Sequence[ExportRow]) -> str:
    """A Markdown table of the version that was exported last: its newest row a format, and what to know about it."""
    if not rows:
        return "Nothing was exported yet: python -m benchmarks.study export"
    newest = {row.format: row for row in rows if row.fingerprint == rows[-1].fingerprint}
    heads = ("format", "greedy tokens equal, loaded again", IN_LLAMA_CPP, IN_VLLM, "MB", "seconds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in FORMATS:
        if (row := newest.get(name)) is not None:
            elsewhere = [_share(row.measured.get(how)) for how in (IN_LLAMA_CPP, IN_VLLM)]
            cells = (name, _agreement_text(row), *elsewhere, _size(row), f"{row.seconds:.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    last = rows[-1]
    commits = ", ".join(sorted({row.commit for row in newest.values()}))
    text = f"{last.version} of run {last.run}, base {last.base}. Commits: {commits}."
    served = {how: share for row in newest.values() for how, share in row.measured.items() if how not in (IN_LLAMA_CPP, IN_VLLM)}
    more = [f"The version {how}: {share:.1%}." for how, share in served.items()]
    missing = [name for name in FORMATS if name not in newest]
    return "\n".join([*lines, "", text, *more, *([f"Not made yet: {', '.join(missing)}."] if missing else [])])


def _agreement_text(row: ExportRow) -> str:
    if row.agreement is None:
        return f"refused: {row.error}"
    ties = f", {row.num_ties} within rounding" if row.num_ties else ""
    return f"{row.agreement:.1%} of {row.num_tokens}{ties}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _size(row: ExportRow) -> str:
    return "" if row.megabytes is None else f"{row.megabytes:.1f}"
