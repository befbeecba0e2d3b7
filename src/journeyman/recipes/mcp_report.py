"""The report of a run of the MCP recipe, from what the run left behind."""

from __future__ import annotations

import json
import os
import platform
import shlex
import time
from collections.abc import Sequence

from journeyman.evaluation import Evaluation, PhaseCost, Report, pick_examples, write_report
from journeyman.recipes.session import Session
from journeyman.types.runs import StepMetrics


def make_report(session: Session, *evaluations: Evaluation, adapter_step: int, model: str, notes: Sequence[str]) -> Report:
    """Put the report together and write it into the run's folder."""
    steps = session.store.runs.steps(session.run)
    names = list(evaluations[0].groups)
    examples = pick_examples(evaluations[0].groups[names[0]], evaluations[0].groups[names[-1]]) if len(names) > 1 else ()
    report = Report(
        run=session.run,
        title=f"{session.settings.base} learns {session.settings.target.label}",
        base=session.settings.base,
        target=session.settings.target.label,
        judge=f"{session.judge.name}: {session.judge.description}",
        created_at=time.time(),
        settings=session.settings.model_dump(mode="json"),
        machine=machine(session),
        evaluations=tuple(evaluation.summary for evaluation in evaluations),
        steps=steps,
        phases=(*session.costs.phases, *step_costs(steps)),
        examples=examples,
        adapter=str(session.folder.adapters / f"{model}@{adapter_step}"),
        serve_command=f"journeyman serve --run {shlex.quote(session.run)} --home {shlex.quote(str(session.home))}",
        curl=curl_line(session, model, evaluations[0].groups[names[0]][0].scenario.task),
        notes=tuple(notes),
    )
    write_report(report, session.folder.report)
    session.progress.note(f"report: {session.folder.report / 'report.html'}")
    return report


def step_costs(steps: Sequence[StepMetrics]) -> tuple[PhaseCost, ...]:
    """What the training steps cost, over every session that the run took."""
    rows = [row.metrics for row in steps if row.phase == "train"]
    if not rows:
        return ()

    def total(name: str) -> float:
        return sum(row.get(name, 0.0) for row in rows)

    return (
        PhaseCost(
            name=f"attempts, {len(rows)} steps", seconds=total("rollout/seconds"), sampled_tokens=int(total("rollout/num_sampled_tokens"))
        ),
        PhaseCost(name=f"updates, {len(rows)} steps", seconds=total("train/seconds"), trained_tokens=int(total("train/num_tokens"))),
    )


def machine(session: Session) -> dict[str, str]:
    """What it ran on."""
    info = session.backend.engine.info
    return {
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": f"{info.device}, {info.dtype}, {info.num_workers} workers",
        "python": platform.python_version(),
        "system": platform.system(),
    }


def curl_line(session: Session, model: str, task: str) -> str:
    """A request that works against `journeyman serve` with its defaults."""
    agent = session.agent()
    body = {
        "model": model,
        "temperature": 0,
        "messages": [message.wire() for message in agent.messages(task)],
        "tools": [tool.model_dump() for tool in agent.tools],
    }
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl -s http://127.0.0.1:8100/v1/chat/completions -H 'Content-Type: application/json' -d {data}"
