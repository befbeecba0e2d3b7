"""Child processes that load an export: the memory is given back, and what libraries print is ours to show or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from journeyman.errors import AdapterError, WaitTimeoutError
from journeyman.export.probes import Probe

_SECONDS = 1800


def run_check(module: str, path: Path, probes: Sequence[Probe], **more: Any) -> Any:
    """Run `module` on a file, the probes and what else is asked; returns its answer. `choices` in it has a list of tokens a probe.

    Raises AdapterError when the child fails, WaitTimeoutError when it takes too long.
    """
    request, answer = path.with_suffix(".request.json"), path.with_suffix(".answer.json")
    request.write_text(json.dumps({"probes": [asdict(probe) for probe in probes], **more}), encoding="utf-8")
    try:
        result = subprocess.run(
            [sys.executable, "-m", module, str(path), str(request), str(answer)],
            capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=_SECONDS,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise AdapterError(f"{path.name} was written, but cannot be read again: {last[:300]}", hint="nothing was kept of this export")
        return json.loads(answer.read_text(encoding="utf-8"))
    except subprocess.TimeoutExpired as error:
        raise WaitTimeoutError(f"checking {path.name} took longer than {_SECONDS} s", hint="is the machine busy? Try again") from error
    finally:
        request.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


def read_probes(path: Path) -> list[Probe]:
    """The probes that `run_check` wrote."""
    asked = json.loads(path.read_text(encoding="utf-8"))["probes"]
    return [Probe(tuple(one["prompt_ids"]), tuple(one["reply_ids"]), tuple(one["gaps"])) for one in asked]
