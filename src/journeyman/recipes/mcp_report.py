"""The report of a run of the MCP recipe, from what the run left behind."""

from __future__ import annotations

import time
from collections.abc import Sequence

from journeyman.config import command_line
from journeyman.evaluation import Evaluation, Report, pick_examples
from journeyman.recipes.run_report import curl_line as request_line
from journeyman.recipes.run_report import kept_report, machine, step_costs
from journeyman.recipes.session import Session
from journeyman.types.names import Version


def make_report(
    session: Session, *evaluations: Evaluation, adapter_step: int, model: str, notes: Sequence[str], is_again: bool = False
) -> Report:
    """Put the report together and write it into the run's folder. `is_again`: as `run_report.kept_report`."""
    steps = session.store.runs.steps(session.run)
    names = list(evaluations[0].groups)
    examples = pick_examples(evaluations[0].groups[names[0]], evaluations[0].groups[names[-1]]) if len(names) > 1 else ()
    report = Report(
        run=session.run,
        title=f"{session.settings.base} learns {session.settings.target.title}",
        base=session.settings.base,
        target=session.settings.target.label,
        judge=f"{session.judge.name}: {session.judge.description}",
        created_at=time.time(),
        settings=session.settings.model_dump(mode="json"),
        machine=machine(session.backend),
        evaluations=tuple(evaluation.summary for evaluation in evaluations),
        steps=steps,
        phases=session.costs.phases if is_again else (*session.costs.phases, *step_costs(steps)),
        judge_cost=session.costs.judge(is_whole=not is_again),
        examples=examples,
        adapter=str(session.folder.adapters / str(Version(model, adapter_step))),
        serve_command=command_line("serve", "--run", session.run, "--home", session.home),
        curl=curl_line(session, model, evaluations[0].groups[names[0]][0].scenario.task),
        notes=tuple(notes),
    )
    return kept_report(report, session, is_again=is_again)


def curl_line(session: Session, model: str, task: str) -> str:
    """A request that works against `journeyman serve` with its defaults."""
    agent = session.agent()
    body = {
        "model": model,
        "temperature": 0,
        "messages": [message.wire() for message in agent.messages(task)],
        "tools": [tool.model_dump() for tool in agent.tools],
    }
    return request_line(body)
