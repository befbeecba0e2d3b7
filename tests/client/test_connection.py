"""The client against a real server over loopback, with the fake engine and the fake trainer behind it."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.service.fakes import FakeTrainer

import journeyman as jm
from journeyman.chat.renderer import Renderer
from journeyman.client.backend import Connection
from journeyman.engine.fake import FakeEngine
from journeyman.errors import InputError, NotFoundError, ServiceError, SettingError, TrainingError
from journeyman.server.app import Server, create_app
from journeyman.service.backend import Backend
from journeyman.store import Store
from journeyman.types.messages import Message
from journeyman.types.trajectory import ToolEvent

KEY = "server-key"
TASK = jm.Scenario(id="s1", task="say hello")


class House:
    """A running server and what stands behind it."""

    def __init__(self, home: Path, tokenizer: Any) -> None:
        self.trainer = FakeTrainer()
        self.engine = FakeEngine(lambda prompt: "hello", tokenizer)
        backend = Backend(self.engine, Renderer(tokenizer, 2048), Store.open(home), lambda *_: (self.trainer, {}))
        self.server = Server(create_app(backend, api_key=KEY), api_key=KEY)


@pytest.fixture
def house(tmp_path: Path, tiny_tokenizer: Any) -> Iterator[House]:
    house = House(tmp_path, tiny_tokenizer)
    with house.server:
        yield house


@pytest.fixture
async def backend(house: House) -> AsyncIterator[Connection]:
    async with jm.connect(house.server.url, api_key=KEY) as connection:
        yield connection


async def say_hello(scenario: jm.Scenario, run: jm.Rollout) -> None:
    reply = await run.openai().chat.completions.create(model=run.model, messages=[{"role": "user", "content": scenario.task}])
    run.metrics["length"] = float(len(reply.choices[0].message.content or ""))


async def test_the_whole_loop_gathers_trains_and_moves_on(backend: Connection, house: House) -> None:
    model = await backend.model("m")
    assert (model.step, model.adapter, model.run, model.base) == (0, "m@0", "m", "fake-model")
    groups = await jm.gather(say_hello, [TASK], model=model, group_size=4)
    (group,) = groups
    assert [trajectory.answer for trajectory in group] == ["hello"] * 4
    assert all(turn.adapter == "m@0" and turn.sampled_ids for trajectory in group for turn in trajectory.turns)
    assert group.trajectories[0].metrics == {"length": 5.0}
    scored = group.model_copy(
        update={
            "trajectories": tuple(
                trajectory.model_copy(update={"reward": float(index % 2)}) for index, trajectory in enumerate(group.trajectories)
            )
        }
    )
    heard: list[float] = []
    result = await model.train([scored], jm.Grpo(learning_rate=1e-3), on_progress=heard.append)
    assert (result.step, model.step, model.adapter) == (1, 1, "m@1")
    assert heard[-1] == 1.0
    again = await jm.gather(say_hello, [TASK], model=model, group_size=1)
    assert again[0].trajectories[0].turns[0].adapter == "m@1"
    assert (await backend.trajectory(scored.trajectories[1].id)).reward == 1.0
    assert [step.step for step in await backend.steps("m")] == [1]


async def test_pairs_are_trained_from_scored_groups_and_from_conversations(backend: Connection, house: House) -> None:
    model = await backend.model("m")
    words = iter(["hello", "go away"])
    house.engine.script = lambda _: next(words, "hello")
    (group,) = await jm.gather(say_hello, [TASK], model=model, group_size=2, max_concurrent=1)
    scored = [one.model_copy(update={"reward": reward}) for one, reward in zip(group.trajectories, (0.2, 0.9), strict=True)]
    pairs = jm.pairs_from_groups([group.model_copy(update={"trajectories": tuple(scored)})], margin=0.1)
    assert pairs == [jm.StoredPair(chosen=scored[1].id, rejected=scored[0].id)]
    user, good, bad = Message(role="user", content="hi"), Message(role="assistant", content="yo"), Message(role="assistant", content="no")
    given = [*pairs, jm.PreferencePair(prompt=(user,), chosen=(good,), rejected=(bad,)), jm.TextPair(prompt="a", chosen="b", rejected="c")]
    heard: list[float] = []
    result = await model.train_dpo(given, jm.Dpo(loss="ipo"), on_progress=heard.append, key="k")
    assert await model.train_dpo(given, jm.Dpo(loss="ipo"), key="k") == result
    assert (result.step, model.adapter, result.metrics["train/num_pairs"], heard[-1]) == (1, "m@1", 3.0, 1.0)
    assert await model.measure_pairs(given) == {"loss": 2.375, "ranked_right": 0.5, "num_pairs": 3.0, "num_pairs_equal": 0.0}
    with pytest.raises(InputError, match="pair 1"):
        await model.train_dpo([given[2], jm.TextPair(prompt="a", chosen="", rejected="c")])


async def test_numbers_that_are_not_finite_are_left_out_and_counted_on_the_way(backend: Connection, house: House) -> None:
    model = await backend.model("m")

    async def odd(scenario: jm.Scenario, run: jm.Rollout) -> None:
        await say_hello(scenario, run)
        run.metrics["odd"] = math.inf

    (group,) = await jm.gather(odd, [TASK], model=model, group_size=2)
    assert [one.metrics for one in group] == [{"length": 5.0, "num_metrics_not_finite": 1.0}] * 2
    scored = [one.model_copy(update={"reward": reward}) for one, reward in zip(group.trajectories, (0.2, 0.9), strict=True)]
    house.trainer.logged = {"kl_to_base": math.nan, "num_updates_skipped": 1.0, "num_skipped_in_a_row": 1.0}
    result = await model.train([group.model_copy(update={"trajectories": tuple(scored)})], jm.Grpo())
    assert "train/kl_to_base" not in result.metrics
    assert (result.metrics["train/num_metrics_not_finite"], result.metrics["train/loss"]) == (1.0, 0.5)
    assert sum("step was skipped" in note for note in result.notes) == 1
    assert (await backend.steps("m"))[0].metrics == result.metrics
    house.trainer.logged = {"entropy": -math.inf}
    again = await model.train([group.model_copy(update={"trajectories": tuple(scored)})], jm.Grpo())
    assert (len(again.notes), "not finite" in again.notes[0]) == (1, True)
    house.trainer.weight = math.nan
    with pytest.raises(TrainingError, match="m@2"):
        await model.loss([jm.TextExample(text="yo")])


async def test_the_loss_of_examples_is_measured_without_training(backend: Connection) -> None:
    model = await backend.model("m")
    (group,) = await jm.gather(say_hello, [TASK], model=model, group_size=1)
    example = jm.SftExample(messages=(Message(role="user", content="hi"), Message(role="assistant", content="yo")))
    heard: list[float] = []
    examples = [example, jm.TextExample(text="yo"), jm.StoredExample(trajectory_id=group.trajectories[0].id)]
    assert await model.loss(examples, on_progress=heard.append) == 0.125
    assert (model.step, heard[-1]) == (0, 1.0)
    with pytest.raises(InputError):
        await model.loss([])


async def test_fixed_versions_and_the_base_can_be_rolled_out(backend: Connection) -> None:
    model = await backend.model("m")
    example = jm.SftExample(messages=(Message(role="user", content="hi"), Message(role="assistant", content="yo")))
    await model.train_sft([example], jm.Sft())
    for served, adapter in ((model.at(0), "m@0"), (model, "m@1"), (backend.base_model(), None)):
        ((trajectory,),) = await jm.gather(say_hello, [TASK], model=served, group_size=1)
        assert trajectory.turns[0].adapter == adapter


async def test_the_same_key_trains_once(backend: Connection, house: House) -> None:
    model = await backend.model("m")
    example = jm.SftExample(messages=(Message(role="user", content="hi"), Message(role="assistant", content="yo")))
    first = await model.train_sft([example], key="k")
    assert await model.train_sft([example], key="k") == first
    assert house.trainer.step == 1


async def test_a_failed_step_raises_what_the_server_raised(backend: Connection, house: House) -> None:
    model = await backend.model("m")
    house.trainer.fail_with = RuntimeError("out of memory")
    example = jm.SftExample(messages=(Message(role="user", content="hi"), Message(role="assistant", content="yo")))
    with pytest.raises(TrainingError, match="out of memory") as caught:
        await model.train_sft([example])
    assert caught.value.hint is not None
    assert model.step == 0


async def test_settings_that_were_not_given_are_not_sent(backend: Connection) -> None:
    await backend.model("m", lora=jm.LoraSettings(rank=4))
    assert (await backend.model("m")).lora.rank == 4
    with pytest.raises(SettingError, match="rank=4"):
        await backend.model("m", lora=jm.LoraSettings(rank=8))


async def test_an_unknown_version_is_not_found(backend: Connection) -> None:
    model = await backend.model("m")
    with pytest.raises(NotFoundError, match="no version '9'"):
        await jm.gather(say_hello, [TASK], model=model.at(9), group_size=1)


async def test_the_environment_points_another_process_at_the_rollout(backend: Connection) -> None:
    seen: dict[str, str] = {}

    async def rollout(scenario: jm.Scenario, run: jm.Rollout) -> None:
        seen.update(run.env())
        assert run.openai() is run.openai()

    await jm.gather(rollout, [TASK], model=backend.base_model(), group_size=1)
    assert seen["OPENAI_BASE_URL"].startswith(f"{backend.url}/r/ro_")
    assert seen["OPENAI_BASE_URL"].endswith("/v1")
    assert seen["OPENAI_API_KEY"] in seen["OPENAI_BASE_URL"]


async def test_runs_are_created_listed_and_read(backend: Connection) -> None:
    created = await backend.create_run("r1", kind="mcp", settings={"seed": 3})
    assert created.settings == {"seed": 3}
    assert await backend.run("r1") == created
    assert [run.id for run in await backend.runs()] == ["r1"]
    with pytest.raises(NotFoundError, match="known runs: r1"):
        await backend.run("r2")


async def test_any_openai_compatible_model_can_be_gathered(backend: Connection) -> None:
    teacher = jm.Model("base", base_url=backend.openai_url, api_key=KEY)
    ((trajectory, _),) = await jm.gather(say_hello, [TASK], model=teacher, group_size=2)
    assert trajectory.answer == "hello"
    (turn,) = trajectory.turns
    assert turn.messages[0].content == "say hello"
    assert (turn.sampled_ids, turn.adapter) == ((), None)
    await teacher.close()


async def test_a_foreign_models_rollout_has_a_limit_of_turns(backend: Connection) -> None:
    async def chatter(scenario: jm.Scenario, run: jm.Rollout) -> None:
        for _ in range(5):
            await say_hello(scenario, run)

    teacher = jm.Model("base", base_url=backend.openai_url, api_key=KEY)
    ((trajectory,),) = await jm.gather(chatter, [TASK], model=teacher, group_size=1, max_turns=2)
    assert trajectory.error is not None
    assert trajectory.error.type == "LlmError"
    assert len(trajectory.turns) == 2
    await teacher.close()


async def test_a_server_that_is_not_there_is_named_with_the_command_that_starts_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with jm.connect(url) as connection:
            with pytest.raises(ServiceError, match=url) as caught:
                await connection.health()
    assert (caught.value.reason, "journeyman serve" in str(caught.value.hint)) == ("unreachable", True)


async def test_a_wrong_key_says_where_to_give_the_right_one(house: House) -> None:
    async with jm.connect(house.server.url + "/v1/", api_key="wrong") as connection:
        with pytest.raises(ServiceError) as caught:
            await connection.runs()
    assert (caught.value.status, "api_key" in str(caught.value.hint)) == (401, True)


async def test_health_tells_the_engine(backend: Connection) -> None:
    assert (await backend.health())["engine"]["base"] == "fake-model"


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ServiceError) as caught:
        jm.connect("gpu-box:8100")
    assert caught.value.reason == "no_url"


def test_a_model_without_any_key_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingError) as caught:
        jm.Model("gpt-5").openai()
    assert caught.value.reason == "missing_key"


async def test_attempts_gathered_under_a_key_are_taken_as_they_were_and_only_missing_ones_made(backend: Connection) -> None:
    model = await backend.model("m")
    asked: list[str] = []

    async def counted(scenario: jm.Scenario, run: jm.Rollout) -> None:
        asked.append(scenario.id)
        await say_hello(scenario, run)

    other = jm.Scenario(id="s2", task="say it again")
    (few,) = await jm.gather(counted, [TASK], model=model, group_size=2, key="step")
    more = await jm.gather(counted, [TASK, other], model=model, group_size=3, key="step")
    assert more[0].trajectories[:2] == few.trajectories
    assert sorted(asked) == ["s1", "s1", "s1", "s2", "s2", "s2"]
    # Another key, no key, or another scenario in the place: nothing is taken.
    await jm.gather(counted, [TASK], model=model, group_size=1, key="ste")
    await jm.gather(counted, [TASK], model=model, group_size=1)
    await jm.gather(counted, [other], model=model, group_size=1, key="step")
    assert asked[6:] == ["s1", "s1", "s2"]


async def test_what_is_not_kept_cannot_be_asked_for_by_key(backend: Connection) -> None:
    with pytest.raises(SettingError) as caught:
        await jm.gather(say_hello, [TASK], model=jm.Model("gpt", "http://127.0.0.1:1/v1", "k"), key="step")
    assert caught.value.reason == "not_kept"
    with pytest.raises(SettingError):
        await jm.gather(say_hello, [TASK], model=backend.base_model(), key="step")


async def test_an_agent_that_closes_its_client_takes_no_connection_from_others(backend: Connection) -> None:
    async def rollout(scenario: jm.Scenario, run: jm.Rollout) -> None:
        async with run.openai() as api, api.with_options(timeout=5) as other:
            await other.chat.completions.create(model=run.model, messages=[{"role": "user", "content": "x"}])
        await run.openai().close()

    model = await backend.model("m")
    for _ in range(2):
        groups = await jm.gather(rollout, [TASK, TASK], model=model, group_size=2)
        assert [one.error for group in groups for one in group] == [None] * 4
        await model.openai().close()


async def test_why_a_job_was_refused_crosses_the_wire(backend: Connection) -> None:
    model = await backend.model("m")
    groups = await jm.gather(say_hello, [TASK], model=backend.base_model(), group_size=2)
    with pytest.raises(SettingError) as caught:
        await model.train(groups)
    assert caught.value.reason == "other_model"


async def test_numbers_at_the_edge_in_tool_events_are_kept_or_are_that_attempts_failure(backend: Connection) -> None:
    good = {"turn": 0, "call_id": "c", "name": "add", "is_known": True, "is_valid": True, "is_error": False, "result": "3"}
    odd: list[dict[str, Any]] = [
        {"arguments": {"n": 10**299}},
        {"arguments": {"n": 2**64}, "turn": 10**30, "seconds": -1e308},
        {"arguments": {"n": 1e308, "x": math.inf}},
        {"arguments": {"\0": "\0"}, "name": "a\0"},
        {"arguments": {"n": 10**400}},
        {"arguments": {"\ud800": 1}},
    ]

    async def agent(scenario: jm.Scenario, run: jm.Rollout) -> None:
        run.record_tool(ToolEvent(**{**good, **odd[int(scenario.id)]}))

    tasks = [jm.Scenario(id=str(number), task="x") for number in range(len(odd))]
    groups = await jm.gather(agent, tasks, model=await backend.model("m"), group_size=1)
    errors = [one.error for group in groups for one in group]
    failed = [error is not None for error in errors]
    assert failed == [False] * 4 + [True] * 2
    assert groups[0].trajectories[0].tool_events[0].arguments == {"n": 10**299}
