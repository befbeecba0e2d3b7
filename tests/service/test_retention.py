"""After a step only what the retention keeps is on disk, and never is anything deleted that somebody uses."""

from __future__ import annotations

import time

import pytest
from tests.reasons import has_reason
from tests.service.house import CREATE, House, scored_group, train_once

from journeyman.errors import NotFoundError
from journeyman.service.backend import Backend
from journeyman.store.locks import ServedFolder
from journeyman.types.messages import Message
from journeyman.types.runs import StepMetrics
from journeyman.types.settings import Retention
from journeyman.types.training import CreateRollout, DpoJob, FinishRollout, SftExample, SftJob, TextPair

ONE = Retention(checkpoints=1, adapters=1, best=0)


def names(house: House, what: str) -> list[str]:
    return sorted(path.name for path in (house.home / "runs" / "r" / what).iterdir())


def add(backend: Backend, phase: str, step: int, metrics: dict[str, float]) -> None:
    backend.store.runs.add_step(StepMetrics(run="r", phase=phase, step=step, time=time.time(), metrics=metrics))


async def opened(house: House, retention: Retention) -> Backend:
    backend = house.start(retention=retention)
    await backend.create_model(CREATE)
    return backend


async def test_the_newest_and_the_untrained_version_stay(house: House) -> None:
    backend = await opened(house, ONE)
    for _ in range(3):
        await train_once(backend)
    assert names(house, "adapters") == ["m@0", "m@3"]
    assert names(house, "checkpoints") == ["step-000003"]
    assert backend.engine.adapters() == ("m@0", "m@3")
    assert [row.step for row in backend.store.models.adapters("r", "m")] == [0, 3]
    with pytest.raises(NotFoundError, check=has_reason("no_version")):
        backend.weights.find("m@1")


async def test_the_best_version_by_reward_stays(house: House) -> None:
    backend = await opened(house, ONE.model_copy(update={"best": 1}))
    for high in (0.2, 0.2, 1.0, 0.2, 0.2):  # the attempts of the third step are those of version 2
        await train_once(backend, high, 0.0)
    assert names(house, "adapters") == ["m@0", "m@2", "m@5"]
    assert names(house, "checkpoints") == ["step-000002", "step-000005"]


async def test_the_best_version_by_a_metric_that_came_with_the_job_stays(house: House) -> None:
    backend = await opened(house, Retention(checkpoints=1, adapters=1, best=1, metric="reward/success"))
    for success in (0.1, 0.2, 0.9, 0.3, 0.2, 0.1):  # the attempts of step 3 are those of version 2
        await train_once(backend, 0.5, 0.0, measured={"reward/success": success})
    assert names(house, "adapters") == ["m@0", "m@2", "m@6"]
    assert names(house, "checkpoints") == ["step-000002", "step-000006"]


async def test_where_lower_is_better_the_version_with_the_lowest_value_stays(house: House) -> None:
    backend = await opened(house, Retention(checkpoints=1, adapters=1, best=1, metric="heldout/loss", best_is="lowest"))
    for step, loss in enumerate((0.9, 0.4, 0.2, 0.7, 0.8), 1):
        await train_once(backend, 0.5, 0.0)
        add(backend, "eval", step, {"heldout/loss": loss})
    assert names(house, "adapters") == ["m@0", "m@3", "m@5"]
    assert names(house, "checkpoints") == ["step-000003", "step-000005"]


async def test_the_best_asked_for_by_a_metric_that_the_method_does_not_have_is_told(house: House) -> None:
    backend = await opened(house, Retention(best=2))
    notes = []
    for _ in range(2):
        job = backend.train("m", DpoJob(pairs=(TextPair(prompt="a", chosen="b", rejected="c"),)))
        result = (await backend.jobs.wait(job.id, 30)).result
        assert result is not None
        notes.append([note for note in result.notes if "no step has the metric 'train/reward_mean'" in note])
    assert [len(each) for each in notes] == [0, 1]


async def test_a_metric_with_a_typo_is_told_of_once_instead_of_silently_keeping_no_best(house: House) -> None:
    backend = await opened(house, Retention(metric="train/reward_meen"))
    notes = []
    for _ in range(3):
        status = await train_once(backend)
        assert status.result is not None
        notes.append([note for note in status.result.notes if "train/reward_meen" in note])
    assert [len(each) for each in notes] == [0, 1, 0]
    assert "did you mean train/reward_mean" in notes[1][0]


async def test_the_end_of_the_warm_start_stays(house: House) -> None:
    backend = await opened(house, ONE)
    messages = (Message(role="user", content="hi"), Message(role="assistant", content="hello"))
    for _ in range(2):
        job = backend.train("m", SftJob(examples=(SftExample(messages=messages),)))
        await backend.jobs.wait(job.id, 30)
    for _ in range(2):
        await train_once(backend)
    assert names(house, "adapters") == ["m@0", "m@2", "m@4"]


async def test_a_version_that_an_open_rollout_uses_stays_until_it_is_finished(house: House) -> None:
    backend = await opened(house, ONE)
    await train_once(backend)
    ticket = await backend.open_rollout(CreateRollout(model="m", scenario_id="s"))
    await train_once(backend)
    await train_once(backend)
    assert names(house, "adapters") == ["m@0", "m@1", "m@3"]
    await backend.finish_rollout(ticket.id, FinishRollout())
    await train_once(backend)
    assert names(house, "adapters") == ["m@0", "m@4"]


async def test_a_version_that_another_process_serves_stays(house: House) -> None:
    backend = await opened(house, ONE)
    await train_once(backend)
    served = ServedFolder(house.home / "runs" / "r" / "adapters" / "m@1")
    await train_once(backend)
    await train_once(backend)
    assert names(house, "adapters") == ["m@0", "m@1", "m@3"]
    served.release()
    await train_once(backend)
    assert names(house, "adapters") == ["m@0", "m@4"]


async def test_a_folder_that_a_kill_left_half_deleted_is_removed_by_the_resume(house: House) -> None:
    first = await opened(house, ONE)
    await train_once(first)
    await train_once(first)
    await house.stop(first)
    left = house.home / "runs" / "r" / "adapters" / "m@1"
    left.mkdir()
    (left / "half").write_text("x")
    second = await opened(house, ONE)
    assert names(house, "adapters") == ["m@0", "m@2"]
    await scored_group(second, 1.0, 0.0)


async def test_without_settings_a_short_run_keeps_all_adapters_and_few_checkpoints(house: House) -> None:
    backend = await opened(house, Retention())
    for _ in range(5):
        await train_once(backend, 0.5, 0.0)
    assert names(house, "adapters") == [f"m@{step}" for step in range(6)]
    assert names(house, "checkpoints") == ["step-000003", "step-000004", "step-000005"]
