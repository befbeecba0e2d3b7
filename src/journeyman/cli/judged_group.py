"""`journeyman runs show RUN --group G`: the attempts at one scenario side by side, with everything the judge said of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from journeyman.store.store import Store
    from journeyman.types.trajectory import Trajectory

_MAX_CHARACTERS = 600


def show_group(home: Path, run: str, group: str, *, as_json: bool = False) -> None:
    """Print a group, best attempt first. `group` is a scenario's id, or `scenario@step` for the attempts of one version.

    Raises NotFoundError, naming groups that there are.
    """
    from journeyman.cli.console import output, write_json
    from journeyman.cli.runs import open_store

    with open_store(home, run) as store:
        attempts = find_group(store, run, group)
    if as_json:
        write_json([one.model_dump(mode="json", exclude={"turns"}) for one in attempts])
        return
    console = output()
    for part in render_group(group, attempts):
        console.print(part)


def find_group(store: Store, run: str, group: str) -> list[Trajectory]:
    """The attempts at a scenario, best reward first; of the newest version that has a reward when no step is named."""
    from journeyman.errors import NotFoundError

    scenario, _, step = group.rpartition("@") if "@" in group else (group, "", "")
    rows = store.rollouts.list_of_run(run)
    found = [row for row in rows if row.scenario_id == scenario]
    if not found:
        known = list(dict.fromkeys(row.scenario_id for row in reversed(rows)))
        hint = f"groups of this run: {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else "this run has no attempts yet"
        raise NotFoundError(f"run {run!r} has no attempts at scenario {scenario!r}", hint=hint)
    attempts = [store.rollouts.trajectory(row.id) for row in found]
    versions = list(dict.fromkeys(one.model for one in attempts))
    if step:
        chosen = [name for name in versions if name.rpartition("@")[2] == step]
        if not chosen:
            raise NotFoundError(f"no attempts at {scenario!r} by step {step}", hint=f"versions: {', '.join(versions)}")
    else:
        judged = [name for name in versions if any(one.model == name and one.verdict is not None for one in attempts)]
        chosen = (judged or versions)[-1:]
    kept = [one for one in attempts if one.model in chosen]
    return sorted(kept, key=lambda one: (one.reward is None, -(one.reward or 0.0)))


def render_group(group: str, attempts: Sequence[Trajectory]) -> list[RenderableType]:
    """One column per attempt; more attempts than fit side by side go into rows of three."""
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    judges = list(dict.fromkeys(one.verdict.judge for one in attempts if one.verdict is not None))
    parts: list[RenderableType] = [
        Rule(Text(f"{group}: {len(attempts)} attempts by {attempts[0].model}, judged by {', '.join(judges) or 'nobody'}"))
    ]
    for start in range(0, len(attempts), 3):
        row = attempts[start : start + 3]
        table = Table(expand=True, show_lines=True)
        for one in row:
            reward = "no reward" if one.reward is None else f"reward {one.reward:.3f}"
            table.add_column(Text(f"{one.id}  {reward}"), ratio=1, overflow="fold")
        table.add_row(*[Text(_conversation(one)) for one in row])
        table.add_row(*[Text(_verdict(one)) for one in row])
        parts.append(table)
    return parts


def _conversation(one: Trajectory) -> str:
    from journeyman.rewards.conversation import conversation, render_messages

    told = render_messages(conversation(one)[1:], max_characters=_MAX_CHARACTERS) or "(no model call)"
    return told if one.error is None else f"{told}\nended by {one.error.type}: {one.error.message}"


def _verdict(one: Trajectory) -> str:
    verdict = one.verdict
    if verdict is None:
        return "not judged"
    score = "abstained" if verdict.score is None else f"score {verdict.score:.3f}"
    lines = [f"{score}: {verdict.explanation}"]
    lines += [f"{name} {value:.3g}" for name, value in verdict.checks.items()]
    for call in verdict.calls:
        said = "no score" if call.score is None else f"{call.score:.3f}"
        source = "from the cache" if call.is_cached else f"{call.seconds:.1f} s"
        lines.append(f"place {call.place + 1} of {call.num_shown}: {said}, {call.model}, {source}, call {call.call}: {call.explanation}")
    return "\n".join(lines)
