"""Trajectories of another tokenizer are never trained on, whoever sampled them; those that are read alike are."""

from __future__ import annotations

import copy
import sqlite3
from typing import Any

import pytest
from tests.reasons import has_reason
from tests.service.house import CREATE, House, attempt, finish

from journeyman.errors import SettingError
from journeyman.types.training import (
    CreateModel,
    DpoJob,
    GrpoJob,
    LossJob,
    PairLossJob,
    ScoredGroup,
    ScoredTrajectory,
    SftJob,
    StoredExample,
    StoredPair,
    TrainJob,
)

ELSEWHERE = CreateModel(name="m", run="other")


def with_another_token(tokenizer: Any) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["hello there"])
    return changed


def jobs_on(first: str, second: str) -> dict[str, TrainJob]:
    scored = (ScoredTrajectory(trajectory_id=first, reward=1.0), ScoredTrajectory(trajectory_id=second, reward=0.0))
    pairs = (StoredPair(chosen=first, rejected=second),)
    examples = (StoredExample(trajectory_id=first),)
    return {
        "grpo": GrpoJob(groups=(ScoredGroup(scenario_id="s", trajectories=scored),)),
        "sft": SftJob(examples=examples),
        "dpo": DpoJob(pairs=pairs),
        "loss": LossJob(examples=examples),
        "pair_loss": PairLossJob(pairs=pairs),
    }


KINDS = ("grpo", "sft", "dpo", "loss", "pair_loss")


async def attempts_of_an_earlier_server(house: House, model: str = "m") -> tuple[str, str]:
    """Two attempts on fake-model, by run r's model or by the base; the server is stopped then."""
    backend = house.start()
    await backend.create_model(CREATE)
    first = await attempt(backend, model)
    house.reply = "good bye"
    second = await attempt(backend, model)
    await house.stop(backend)
    return first, second


def forget_tokenizers(house: House, *tables: str) -> None:
    """As if an earlier version had written these tables."""
    with sqlite3.connect(house.home / "journeyman.db") as connection:
        for table in tables:
            connection.execute(f"UPDATE {table} SET tokenizer = NULL")
    connection.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_trajectory_of_another_tokenizer_is_refused_by_its_id_although_its_model_has_the_same_name(house: House, kind: str) -> None:
    ids = await attempts_of_an_earlier_server(house)
    house.tokenizer = with_another_token(house.tokenizer)
    backend = house.start(base="another-base")
    await backend.create_model(ELSEWHERE)
    status = await finish(backend, backend.train("m", jobs_on(*ids)[kind]))
    assert status.error is not None
    assert (status.error_code, status.error_reason) == ("invalid_input", "other_tokenizer")
    assert all(name in status.error for name in (ids[0], "m@0", "'r'", "another-base"))
    assert house.trainer.seen == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "grpo"])
async def test_a_trajectory_on_another_base_of_the_same_tokenizer_is_taken(house: House, kind: str) -> None:
    ids = await attempts_of_an_earlier_server(house)
    backend = house.start(base="another-base")
    await backend.create_model(ELSEWHERE)
    status = await finish(backend, backend.train("m", jobs_on(*ids)[kind]))
    assert status.error is None
    assert house.trainer.seen


async def test_a_policy_update_takes_no_trajectory_of_another_run_though_the_model_has_the_same_name(house: House) -> None:
    ids = await attempts_of_an_earlier_server(house)
    for base in ("fake-model", "another-base"):
        backend = house.start(base=base)
        await backend.create_model(CreateModel(name="m", run=f"on-{base}"))
        status = await finish(backend, backend.train("m", jobs_on(*ids)["grpo"]))
        assert status.error_code == "invalid_setting"
        assert all(name in str(status.error) for name in (ids[0], "'r'", f"'on-{base}'"))
        assert house.trainer.seen == []
        await house.stop(backend)


async def test_an_attempt_of_the_base_itself_is_refused_too(house: House) -> None:
    ids = await attempts_of_an_earlier_server(house, "base")
    house.tokenizer = with_another_token(house.tokenizer)
    backend = house.start(base="another-base")
    await backend.create_model(ELSEWHERE)
    status = await finish(backend, backend.train("m", jobs_on(*ids)["sft"]))
    assert (status.error_reason, ids[0] in str(status.error)) == ("other_tokenizer", True)


class TestStoresOfEarlierVersions:
    async def test_without_any_fingerprint_the_name_of_the_base_decides(self, house: House) -> None:
        ids = await attempts_of_an_earlier_server(house)
        forget_tokenizers(house, "rollouts", "runs")
        backend = house.start(base="another-base")
        await backend.create_model(ELSEWHERE)
        status = await finish(backend, backend.train("m", jobs_on(*ids)["sft"]))
        assert "with another tokenizer" in str(status.error)

    async def test_the_same_base_goes_on_and_its_run_is_given_the_fingerprint(self, house: House) -> None:
        ids = await attempts_of_an_earlier_server(house)
        forget_tokenizers(house, "rollouts", "runs")
        backend = house.start()
        await backend.create_model(CREATE)
        assert backend.store.runs.get("r").tokenizer == backend.renderer.fingerprint
        status = await finish(backend, backend.train("m", jobs_on(*ids)["sft"]))
        assert status.error is None

    async def test_the_fingerprint_of_its_run_speaks_for_a_trajectory_without_one(self, house: House) -> None:
        ids = await attempts_of_an_earlier_server(house)
        forget_tokenizers(house, "rollouts")
        backend = house.start(base="another-base")
        await backend.create_model(ELSEWHERE)
        status = await finish(backend, backend.train("m", jobs_on(*ids)["sft"]))
        assert status.error is None


class TestABaseChangedUnderItsName:
    async def test_its_run_is_refused(self, house: House) -> None:
        await attempts_of_an_earlier_server(house)
        house.tokenizer = with_another_token(house.tokenizer)
        backend = house.start()
        with pytest.raises(SettingError, check=has_reason("other_tokenizer")):
            await backend.create_model(CREATE)
        with pytest.raises(SettingError, check=has_reason("other_tokenizer")):
            backend.serve_run("r")

    async def test_its_checkpoint_is_refused_where_the_run_does_not_say(self, house: House) -> None:
        await attempts_of_an_earlier_server(house)
        forget_tokenizers(house, "runs")
        house.tokenizer = with_another_token(house.tokenizer)
        backend = house.start()
        with pytest.raises(SettingError, check=has_reason("other_tokenizer")):
            await backend.create_model(CREATE)
