"""The second opinion of `journeyman eval RUN --judge M`: a model compares what the base and the trained model did on held-out tasks."""

from __future__ import annotations

from journeyman.evaluation import Evaluation
from journeyman.evaluation.pairwise import prefer
from journeyman.recipes.session import Session
from journeyman.rewards import Ruler


async def compare_by_judge(session: Session, evaluation: Evaluation, judge: str, model: str) -> tuple[str, ...]:
    """Notes for the report: the win rate of the last variant over the first, and a warning when the judge is partial."""
    names = list(evaluation.groups)
    if len(names) < 2:
        return ("nothing to compare with the judge: the run has one variant only",)
    options = session.settings.judge_options
    ruler = Ruler(judge, options.base_url, options=options, home=session.home, run=f"{session.run}:eval", warn=session.progress.warn)
    is_partial = judge == session.settings.judge or judge.rpartition("/")[2].partition("@")[0] == model
    session.costs.watch(ruler)
    session.progress.phase("judge", total=None, note=ruler.name)
    try:
        await ruler.check()
        async with session.costs.phase("compare by judge"):
            first, last = (evaluation.groups[name] for name in (names[0], names[-1]))
            result = await prefer(ruler, (names[0], first), (names[-1], last), is_training_judge=is_partial)
    finally:
        await ruler.close()
    return (result.text(), result.warning) if result.warning else (result.text(),)
