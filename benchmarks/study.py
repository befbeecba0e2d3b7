"""Studies: the same recipe under different settings and seeds; a row a finished run, so that a study goes on where it stopped.

    python -m benchmarks.study yes_no_maybe --jobs 2     make the runs that have no row yet
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
from pathlib import Path

from benchmarks.studies import exports
from benchmarks.studies.cells import STUDIES, Cell, Study, cells
from benchmarks.studies.lines import LineFile
from benchmarks.studies.rows import RowFile, newest
from benchmarks.studies.runner import Runner, code_version
from benchmarks.studies.summary import Rows, draw, notes, table
from journeyman.errors import JourneymanError, SettingError

_REPOSITORY = Path(__file__).resolve().parents[1]


def main(words: Sequence[str] | None = None, *, command: Sequence[str] = (str(Path(sys.executable).with_name("journeyman")),)) -> int:
    """The exit code: 1 when a run failed, 2 for unusable arguments, 130 after Ctrl-C."""
    given = _parser().parse_args(words)
    names = list(exports.FORMATS) if given.name == exports.NAME else [variant.name for variant in STUDIES[given.name].variants]
    if unknown := set(given.only or ()) - set(names):
        print(f"{given.name} has no variant {', '.join(sorted(unknown))}; it has {', '.join(names)}")
        return 2
    try:
        return export_formats(given, command) if given.name == exports.NAME else make_runs(given, command)
    except JourneymanError as error:
        print(error)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; the same command goes on: only the runs under way are made again")
        return 130


def make_runs(given: argparse.Namespace, command: Sequence[str]) -> int:
    """The exit code of a study of runs. Raises SettingError for an option that is of exports."""
    if given.run is not None:
        raise SettingError("--run is of the study of exports; the other studies make their runs themselves", hint="leave --run out")
    study = STUDIES[given.name]
    wanted = cells(study, given.seeds, given.only or (), given.set or ())
    rows = RowFile(given.docs / "studies" / f"{study.name}.jsonl")
    if given.show:
        show(study, wanted, rows, given.docs / "pictures" / f"study_{study.name}.png")
        return 0
    runner = Runner(study, rows, given.home, command, code_version(_REPOSITORY), given.jobs, 60 * given.minutes, given.keep_weights)
    return 0 if asyncio.run(_until_stopped(runner, wanted)) else 1


def export_formats(given: argparse.Namespace, command: Sequence[str]) -> int:
    """The exit code of the study of exports. Raises SettingError for options that it would ignore."""
    rows = LineFile(given.docs / "studies" / f"{exports.NAME}.jsonl", exports.ExportRow)
    if given.show:
        print(exports.table(rows.read()))
        return 0
    if given.jobs > 1 or (given.run is not None and given.set):
        raise SettingError(
            "exports are made one after another, of a run that is trained already", hint="leave out --jobs, and --set with --run"
        )
    folder = given.home / exports.NAME
    if given.run is None:
        subject = exports.trained_subject(folder, given.set or (), given.seeds[0], command, 60 * given.minutes)
    else:
        subject = exports.Subject(given.home, given.run)
    exporter = exports.Exporter(rows, folder / "files", code_version(_REPOSITORY), keeps_weights=given.keep_weights)
    return 0 if exporter.run(subject, given.only or list(exports.FORMATS)) else 1


def show(study: Study, wanted: Sequence[Cell], rows: RowFile, picture: Path) -> None:
    """Print the table of the runs that are made, and draw their curves."""
    made = rows.read()
    found = {cell: row for cell in wanted if (row := newest(made, cell)) is not None}
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
    parser.add_argument("name", choices=sorted([*STUDIES, exports.NAME]))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="of the runs; exports are of one run, of the first [1 2 3]")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="only these variants, or formats")
    parser.add_argument("--run", help="export: this run of the home folder, instead of one that is trained for it")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help="a setting for all runs; repeatable")
    parser.add_argument("--home", type=Path, default=Path(".journeyman/studies"), help="where the runs are kept [%(default)s]")
    parser.add_argument("--docs", type=Path, default=_REPOSITORY / "docs", help="where rows and pictures go [docs]")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once [1]")
    parser.add_argument("--minutes", type=float, default=240.0, help="for one run, then it has failed [%(default)g]")
    parser.add_argument("--keep-weights", action="store_true", help="leave adapters and checkpoints of finished runs on disk")
    parser.add_argument("--show", action="store_true", help="print the table and draw the curves; run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
