"""Studies: the same recipe under different settings and seeds; a row a finished run, so that a study goes on where it stopped.

    python -m benchmarks.study                           make the runs of all studies that have no row yet
    python -m benchmarks.study yes_no_maybe --jobs 2     those of one study
    python -m benchmarks.study yes_no_maybe --show       the table, and the picture of the curves
    python -m benchmarks.study export                    one run in every export format, loaded again (studies/exports.py)

Rows stand in docs/studies/NAME.jsonl, pictures in docs/pictures/study_NAME.png. A run counts as made when it has a row with the settings
that it would have now; a failed one has a row with its error and is tried again.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.studies import exports
from benchmarks.studies.cells import DEFAULT, STUDIES, Cell, Study, cells
from benchmarks.studies.challenger import best_challenger
from benchmarks.studies.lines import LineFile
from benchmarks.studies.rows import RowFile, newest
from benchmarks.studies.runner import Runner, code_version
from benchmarks.studies.summary import Rows, draw, notes, table
from journeyman.errors import JourneymanError, SettingError

_REPOSITORY = Path(__file__).resolve().parents[1]
_COMMIT = partial(code_version, _REPOSITORY)
_NAMES = (*STUDIES, exports.NAME)


def main(words: Sequence[str] | None = None, *, command: Sequence[str] = (str(Path(sys.executable).with_name("journeyman")),)) -> int:
    """The exit code: 1 when a run failed or could not be chosen, 2 for unusable arguments, 130 after Ctrl-C."""
    given = _parser().parse_args(words)
    names: list[str] = given.studies or list(_NAMES)
    variants = {name: list(exports.FORMATS) if name == exports.NAME else [one.name for one in STUDIES[name].variants] for name in names}
    if unknown := set(given.only or ()).difference(*variants.values()):
        for name, known in variants.items():
            print(f"{name} has no variant {', '.join(sorted(unknown))}; it has {', '.join(known)}")
        return 2
    if given.only:
        names = [name for name in names if set(variants[name]) & set(given.only)]
    try:
        return max([export_formats(given, command) if name == exports.NAME else make_runs(STUDIES[name], given, command) for name in names])
    except JourneymanError as error:
        print(error)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; the same command goes on: only the runs under way are made again")
        return 130


def make_runs(study: Study, given: argparse.Namespace, command: Sequence[str]) -> int:
    """Make the runs of one study, or show it; the exit code. Raises SettingError for an option that is of exports."""
    for option, value in (("--run", given.run), ("--vllm", given.vllm)):
        if value is not None and given.studies and exports.NAME not in given.studies:
            raise SettingError(f"{option} is of the study of exports; {study.name} has no use for it", hint=f"leave {option} out")
    only, is_known, note = _chosen(study, given)
    wanted = cells(study, given.seeds, only, given.set or ())
    rows = _rows_of(study, given)
    if note and (is_known or not given.show):
        print(note)
    if given.show:
        shown = cells(study, given.seeds, given.only or (), given.set or ())
        show(study, shown, wanted, rows, given.docs / "pictures" / f"study_{study.name}.png")
        return 0
    runner = Runner(study, rows, given.home, command, _COMMIT, given.jobs, 60 * given.minutes, given.keep_weights)
    is_done = asyncio.run(_until_stopped(runner, wanted))
    return 0 if is_done and is_known else 1


def _chosen(study: Study, given: argparse.Namespace) -> tuple[tuple[str, ...], bool, str]:
    """The variants to run, whether all of them are known (the best challenger is not before it was looked for), and a line on that."""
    if given.only:
        return tuple(name for name in given.only if name in {variant.name for variant in study.variants}), True, ""
    if not study.challenger_of:
        return tuple(variant.name for variant in study.variants), True, ""
    if given.challenger:
        return (DEFAULT, given.challenger), True, ""
    other = STUDIES[study.challenger_of]
    best = best_challenger(other, _rows_of(other, given).read())
    if best is None:
        note = (
            f"{study.name}: the challenger of the default is not known yet: {other.name} has no seed for which every variant is finished. "
            f"Only the default is run. Run that study first (python -m benchmarks.study {other.name}), or name it: --challenger cispo"
        )
        return (DEFAULT,), False, note
    return (DEFAULT, best.name), True, f"{study.name}: the challenger is the best of {other.name}: {best}; --challenger names another"


def _rows_of(study: Study, given: argparse.Namespace) -> RowFile:
    return RowFile(given.docs / "studies" / f"{study.name}.jsonl")


def export_formats(given: argparse.Namespace, command: Sequence[str]) -> int:
    """The exit code of the study of exports. Raises SettingError for options that it would ignore."""
    rows = LineFile(given.docs / "studies" / f"{exports.NAME}.jsonl", exports.ExportRow)
    if given.show:
        print(exports.table(rows.read()))
        return 0
    if (given.jobs > 1 and given.studies == [exports.NAME]) or (given.run is not None and given.set):
        raise SettingError(
            "exports are made one after another, of a run that is trained already", hint="leave out --jobs, and --set with --run"
        )
    folder = given.home / exports.NAME
    if given.run is None:
        subject = exports.trained_subject(folder, given.set or (), given.seeds[0], command, 60 * given.minutes)
    else:
        subject = exports.Subject(given.home, given.run)
    exporter = exports.Exporter(rows, folder / "files", _COMMIT, keeps_weights=given.keep_weights, vllm=given.vllm)
    return 0 if exporter.run(subject, given.only or list(exports.FORMATS)) else 1


def show(study: Study, shown: Sequence[Cell], wanted: Sequence[Cell], rows: RowFile, picture: Path) -> None:
    """Print the table of the runs among `shown` that are made, name those of `wanted` that are not, and draw the curves."""
    made = rows.read()
    found = {cell: row for cell in shown if (row := newest(made, cell)) is not None}
    by_variant: Rows = {
        variant.name: [row for cell, row in found.items() if cell.variant == variant]
        for variant in study.variants
        if any(cell.variant == variant for cell in found)
    }
    print(f"{study.title}\n\n{table(study, by_variant)}\n\n{notes(by_variant, [cell.name for cell in wanted if cell not in found])}")
    if draw(study, by_variant, picture) is not None:
        print(f"curves: {picture}")


async def _until_stopped(runner: Runner, wanted: Sequence[Cell]) -> bool:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await runner.run(wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description="Run or show a study.")
    parser.add_argument("studies", nargs="*", type=_study, metavar="STUDY", help=f"{', '.join(_NAMES)} [all, one after the other]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of the runs; exports are of one run, of the first [1 2 3]")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="only these variants, or formats")
    names = [variant.name for study in STUDIES.values() if study.challenger_of for variant in study.variants if variant.name != DEFAULT]
    parser.add_argument("--challenger", choices=names, help="what mcp runs beside its default [the best of yes_no_maybe]")
    parser.add_argument("--run", help="export: this run of the home folder, instead of one that is trained for it")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="export: a Python that has vLLM, to load the exports there too")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help="a setting for all runs; repeatable")
    parser.add_argument("--home", type=Path, default=Path(".journeyman/studies"), help="where the runs are kept [%(default)s]")
    parser.add_argument("--docs", type=Path, default=_REPOSITORY / "docs", help="where rows and pictures go [docs]")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once [1]")
    parser.add_argument("--minutes", type=float, default=240.0, help="for one run, then it has failed [%(default)g]")
    parser.add_argument("--keep-weights", action="store_true", help="leave adapters and checkpoints of finished runs on disk")
    parser.add_argument("--show", action="store_true", help="print the table and draw the curves; run nothing")
    return parser


def _study(name: str) -> str:
    if name not in _NAMES:
        raise argparse.ArgumentTypeError(f"there is no study {name!r}; there are {', '.join(_NAMES)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
