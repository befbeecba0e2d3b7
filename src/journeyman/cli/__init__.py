"""The command line: one file a command, thin. `journeyman --help` imports nothing heavy."""

from __future__ import annotations


def main() -> None:
    """The `journeyman` program: runs the command in `sys.argv` and exits with its code."""
    from journeyman.cli.app import run

    raise SystemExit(run())
