"""The SFT and DPO recipes from data to report and result.json, with a fake model and a trainer without gradients."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import imitate, prefer
from tests.reasons import has_reason
from tests.recipes.backend import FakeModel
from tests.recipes.conftest import RecordingProgress
from tests.recipes.own_functions import good_pairs, module_of, rows, write_rows
from tests.recipes.test_grpo import only_run, result_of
from tests.service.fakes import FakeTrainer
from tests.service.test_examples import turn as made_turn

from journeyman.chat.renderer import Renderer
from journeyman.errors import InputError, NotFoundError, SettingError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes import data as run_data
from journeyman.recipes import dpo, grpo, sft
from journeyman.recipes.data import dpo_data, sft_data
from journeyman.recipes.settings import CONFIGS, ChatOrFunction, DpoData, DpoTrain, GrpoTrain, SftData, SftTrain
from journeyman.recipes.train import check
from journeyman.store import Store
from journeyman.store.rollouts import RolloutRow
from journeyman.types.settings import Dpo, Retention, Sft
from journeyman.types.training import FinishRollout, SftExample, StoredExample, StoredPair


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SftTrain:
    monkeypatch.chdir(tmp_path)
    write_rows("rows.jsonl", rows(12))
    data = SftData(source="rows.jsonl", num_heldout=4)
    training = Sft(batch_size=2, epochs=2)
    return SftTrain(name="doubler", base="fake-model", data=data, sft=training, updates_per_step=2, evaluate_every=2, reply_tokens=400)


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DpoTrain:
    monkeypatch.chdir(tmp_path)
    write_rows("pairs.jsonl", good_pairs())
    data = DpoData(source="pairs.jsonl", num_heldout=4)
    return DpoTrain(name="doubler", base="fake-model", data=data, dpo=Dpo(batch_size=2), updates_per_step=2, evaluate_every=1)


class TestSft:
    async def test_a_run_ends_with_the_held_out_loss_over_the_steps_and_replies_in_pairs(
        self, model: FakeModel, settings: SftTrain, tmp_path: Path
    ) -> None:
        progress = RecordingProgress()
        report = await sft.train(settings, progress, home=tmp_path, run="one")
        # 8 to train on, 4 a step, twice over.
        assert [(step.phase, step.step) for step in report.steps if step.phase == "train"] == [("train", at) for at in (1, 2, 3, 4)]
        assert [step.step for step in report.steps if step.phase == "eval"] == [0, 2, 4]
        (evaluation,) = report.evaluations
        assert evaluation.num_scenarios == 4
        assert evaluation.comparison("base", "trained").success.difference.mean == 1.0
        result = result_of(tmp_path, "one")
        assert (result.recipe, result.method, len(result.steps)) == ("doubler", "sft", 4)
        # The fake trainer's loss is what it has learned.
        assert (result.final["heldout/loss_before"], result.final["heldout/loss"]) == (0.125, 4.125)
        # Measured after every second step, as that step left the model.
        assert [step.get("heldout/loss") for step in result.steps] == [None, 2.125, None, 4.125]
        assert result.final["heldout/gain"] == 1.0
        rates = [step["train/learning_rate"] for step in result.steps]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == settings.sft.learning_rate
        assert rates[-1] == pytest.approx(0.1 * rates[0])
        assert any(note.startswith("12 rows read as messages") and "8 to train on, 4 held out" in note for note in progress.notes)
        assert only_run(tmp_path).kind == "sft"

    async def test_the_versions_that_stay_are_those_that_were_asked_for_and_the_one_with_the_lowest_held_out_loss(
        self, model: FakeModel, settings: SftTrain, tmp_path: Path
    ) -> None:
        few = SftTrain.model_validate(settings.model_dump() | {"retention": {"checkpoints": 1, "adapters": 1}, "evaluate_every": 1})
        await sft.train(few, SilentProgress(), home=tmp_path, run="one")
        folder = tmp_path / "runs" / "one"
        # The fake trainer's loss rises with each step.
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000000", "step-000004"]
        assert sorted(path.name for path in (folder / "adapters").iterdir()) == ["doubler@0", "doubler@4"]

    async def test_every_example_is_seen_once_an_epoch_and_no_held_out_one(
        self, model: FakeModel, settings: SftTrain, tmp_path: Path
    ) -> None:
        await sft.train(settings.model_copy(update={"heldout_replies": 0}), SilentProgress(), home=tmp_path, run="one")
        (trainer,) = model.trainers
        trained = [seen[0] for seen in trainer.seen]
        heldout = [part for part in trained if len(part) == 4 and trained.count(part) >= 3]
        assert len(heldout) == 3
        steps = [[sample.token_ids for sample in part] for part in trained if part != heldout[0]]
        first, second = steps[0] + steps[1], steps[2] + steps[3]
        assert sorted(first) == sorted(second)
        assert first != second
        assert len(set(first)) == 8
        assert not set(first) & {sample.token_ids for sample in heldout[0]}

    async def test_a_run_stopped_inside_a_step_goes_on_as_if_it_had_not_been(
        self, model: FakeModel, settings: SftTrain, tmp_path: Path
    ) -> None:
        await sft.train(settings, SilentProgress(), home=tmp_path / "whole", run="one")
        whole = model.trainers[-1].weight
        model.stop_at = 2
        task = asyncio.create_task(sft.train(settings, SilentProgress(), home=tmp_path / "halves", run="one"))
        loop = asyncio.get_running_loop()
        model.stop = lambda: loop.call_soon_threadsafe(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert only_run(tmp_path / "halves").state == "stopped"
        model.stop_at = None
        report = await sft.train(settings, SilentProgress(), home=tmp_path / "halves", run="one", is_resumed=True)
        assert [step.step for step in report.steps if step.phase == "train"] == [1, 2, 3, 4]
        assert [step.step for step in report.steps if step.phase == "eval"] == [0, 2, 4]
        assert model.trainers[-1].weight == whole

    async def test_a_run_does_not_go_on_with_other_examples(self, model: FakeModel, settings: SftTrain, tmp_path: Path) -> None:
        few = settings.model_copy(update={"steps": 1, "heldout_replies": 0})
        await sft.train(few, SilentProgress(), home=tmp_path / "home", run="one")
        write_rows("rows.jsonl", rows(13))
        with pytest.raises(SettingError, check=has_reason("other_data")):
            await sft.train(few, SilentProgress(), home=tmp_path / "home", run="one", is_resumed=True)
        assert only_run(tmp_path / "home").step == 1

    async def test_held_out_examples_may_stand_apart(self, model: FakeModel, settings: SftTrain, tmp_path: Path) -> None:
        write_rows("apart.jsonl", rows(20)[14:])
        data = sft_data(
            settings.model_copy(update={"data": SftData(source="rows.jsonl", heldout_source="apart.jsonl", num_heldout=3)}), tmp_path
        )
        assert (len(data.train), len(data.heldout)) == (12, 3)
        assert "held out: 6 rows" in data.note


class TestDpo:
    async def test_a_run_ends_with_held_out_pairs_over_the_steps(self, model: FakeModel, pairs: DpoTrain, tmp_path: Path) -> None:
        kept = pairs.model_copy(update={"retention": Retention(checkpoints=1, best=0)})
        report = await dpo.train(kept, SilentProgress(), home=tmp_path, run="one")
        assert [path.name for path in (tmp_path / "runs" / "one" / "checkpoints").iterdir()] == ["step-000002"]
        assert [step.step for step in report.steps if step.phase == "train"] == [1, 2]
        assert [step.step for step in report.steps if step.phase == "eval"] == [0, 1, 2]
        assert report.evaluations == ()
        result = result_of(tmp_path, "one")
        assert (result.method, len(result.steps)) == ("dpo", 2)
        assert {"heldout/ranked_right", "heldout/ranked_right_before", "heldout/loss", "heldout/loss_before"} <= result.final.keys()
        assert result.final["train/chosen_logprob_change"] == 0.0
        assert all({"heldout/ranked_right", "heldout/loss", "train/loss"} <= step.keys() for step in result.steps)
        assert result.steps[-1]["heldout/ranked_right"] == result.final["heldout/ranked_right"]

    async def test_a_finding_is_told_once_while_it_lasts(
        self, model: FakeModel, pairs: DpoTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        learned = FakeTrainer.preference_step
        falling = {"chosen_logprob_change": -0.4, "rejected_logprob_change": -0.9}
        monkeypatch.setattr(FakeTrainer, "preference_step", lambda *given: learned(*given) | falling)
        progress = RecordingProgress()
        await dpo.train(pairs, progress, home=tmp_path, run="one")
        assert progress.steps == [1, 2]
        (told,) = [text for text in progress.notes + progress.warnings if "chosen_falling" in text]
        assert "0.40 nats per token less likely" in told

    async def test_it_goes_on_from_a_stop(self, model: FakeModel, pairs: DpoTrain, tmp_path: Path) -> None:
        await dpo.train(pairs.model_copy(update={"steps": 1}), SilentProgress(), home=tmp_path, run="one")
        report = await dpo.train(pairs, SilentProgress(), home=tmp_path, run="one", is_resumed=True)
        assert [step.step for step in report.steps if step.phase == "train"] == [1, 2]


def keep_attempts(home: Path, *attempts: tuple[str, float, str]) -> None:
    """A run `kept` of attempts at tasks that their keys name: key, reward, finish reason."""
    with Store.open(home) as store:
        store.runs.create("kept", kind="grpo", base="fake-model")
        for number, (key, reward, reason) in enumerate(attempts):
            name = f"r{number}"
            scenario = key.split("/")[-2]
            store.rollouts.open(RolloutRow(name, "m@0", scenario, 1, run="kept", key=key), name)
            store.rollouts.append_turn(name, made_turn(0, (1, 2), (3 + number,), finish_reason=reason))
            store.rollouts.seal(name, FinishRollout(reward=reward))


class TestFromRun:
    @pytest.fixture
    async def home(self, model: FakeModel, doubler: GrpoTrain, tmp_path: Path) -> Path:
        """A home folder with a GRPO run whose attempts have rewards."""
        name = module_of(doubler)
        tried = doubler.model_copy(
            update={
                "num_train": 6,
                "num_heldout": 2,
                # Scores itself, so that attempts at held-out tasks have stored rewards too.
                "rollout": ChatOrFunction(function=f"{name}.agent"),
                "rewards": {},
                "groups_per_step": 3,
                "group_size": 4,
            }
        )
        await grpo.train(tried, SilentProgress(), home=tmp_path / "home", run="tried")
        return tmp_path / "home"

    async def test_the_best_attempts_are_imitated_but_none_at_held_out_tasks(self, home: Path, model: FakeModel) -> None:
        data = SftData(from_run="tried", min_reward=1.0, max_per_task=1, num_heldout=2)
        settings = SftTrain(base="fake-model", data=data, updates_per_step=1)
        found = sft_data(settings, home)
        assert len(found.train) + len(found.heldout) == 6
        with Store.open(home) as store:
            kept = [
                store.rollouts.trajectory(one.trajectory_id) for one in (*found.train, *found.heldout) if isinstance(one, StoredExample)
            ]
        assert {one.reward for one in kept} == {1.0}
        assert len({one.scenario_id for one in kept}) == 6
        report = await sft.train(settings, SilentProgress(), home=home, run="imitated")
        assert report.steps[-1].metrics
        assert report.evaluations == ()

    async def test_attempts_at_one_task_are_trained_or_held_out_together(self, home: Path, model: FakeModel) -> None:
        found = sft_data(SftTrain(base="fake-model", data=SftData(from_run="tried", max_per_task=2, num_heldout=3)), home)
        with Store.open(home) as store:
            train, heldout = (
                [store.rollouts.trajectory(one.trajectory_id).scenario_id for one in part if isinstance(one, StoredExample)]
                for part in (found.train, found.heldout)
            )
        assert len(train) + len(heldout) == 12
        assert not set(train) & set(heldout)
        assert len(heldout) == 4  # two tasks of two attempts: three are asked for, and no task is divided
        with pytest.raises(SettingError, check=has_reason("too_few_examples")):
            sft_data(SftTrain(base="fake-model", data=SftData(from_run="tried", max_per_task=2, num_heldout=11)), home)

    async def test_attempts_that_were_cut_off_are_left_out_counted_and_told(self, home: Path, model: FakeModel, tmp_path: Path) -> None:
        keep_attempts(tmp_path / "cut", ("train-0/0/0", 1.0, "length"), ("train-0/0/1", 1.0, "stop"), ("train-0/1/0", 1.0, "stop"))
        data = SftData(from_run="kept", num_heldout=0)
        found = sft_data(SftTrain(base="fake-model", data=data), tmp_path / "cut")
        assert len(found.train) == 2
        assert "1 more were cut off at the token limit and are left out" in found.note

    async def test_scores_of_different_gatherings_are_not_compared(self, tmp_path: Path) -> None:
        # One version tried one task in a probe and in a step; a judge compared within each.
        probe = [("warmup-0/ab/0/0", 0.9, "stop"), ("warmup-0/ab/0/1", 0.8, "stop")]
        step = [("train-0/ab/0/0", 0.3, "stop"), ("train-0/ab/0/1", 0.1, "stop")]
        keep_attempts(tmp_path / "home", *probe, *step)
        found = dpo_data(DpoTrain(base="fake-model", data=DpoData(from_run="kept", margin=0.0, num_heldout=0)), tmp_path / "home")
        assert [(one.chosen, one.rejected) for one in found.train if isinstance(one, StoredPair)] == [("r0", "r1"), ("r2", "r3")]

    async def test_groups_give_pairs(self, home: Path, model: FakeModel) -> None:
        settings = DpoTrain(base="fake-model", data=DpoData(from_run="tried", num_heldout=1), updates_per_step=1)
        found = dpo_data(settings, home)
        assert len(found.train) + len(found.heldout) == 6
        with Store.open(home) as store:
            (pair,) = found.heldout
            assert isinstance(pair, StoredPair)
            assert [store.rollouts.trajectory(name).reward for name in (pair.chosen, pair.rejected)] == [1.0, 0.0]
        assert (await dpo.train(settings, SilentProgress(), home=home, run="compared")).steps

    async def test_a_run_that_cannot_give_examples_is_refused(self, home: Path, tmp_path: Path) -> None:
        settings = SftTrain(base="fake-model", data=SftData(from_run="tried"))
        with pytest.raises(NotFoundError, check=has_reason("no_run")):
            sft_data(settings.model_copy(update={"data": SftData(from_run="none")}), home)
        with pytest.raises(SettingError, check=has_reason("other_base")):
            sft_data(settings.model_copy(update={"base": "other"}), home)
        with pytest.raises(InputError, check=has_reason("no_home")):
            sft_data(settings, tmp_path / "nowhere")
        with pytest.raises(SettingError, check=has_reason("too_few_examples")):
            sft_data(settings.model_copy(update={"data": SftData(from_run="tried", max_per_task=1)}), home)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give one of `source`"),
        ({"source": "a", "from_run": "b"}, "give one of `source`"),
        ({"from_run": "b", "skip_bad": True, "format": "messages"}, "format, skip_bad belong to `source`"),
        ({"source": "a", "max_per_task": 3}, "`max_per_task` belongs to `from_run`"),
    ],
)
def test_data_settings_that_would_be_ignored_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SftData(**given)


async def test_bad_rows_stop_a_run_before_anything_is_made_or_are_left_out_and_counted(
    model: FakeModel, settings: SftTrain, tmp_path: Path
) -> None:
    write_rows("rows.jsonl", [*rows(12), {"messages": []}])
    with pytest.raises(InputError, match=r"rows.jsonl, line 13"):
        await sft.train(settings, SilentProgress(), home=tmp_path / "home", run="one")
    assert not (tmp_path / "home").exists()
    skipped = settings.model_copy(update={"data": SftData(source="rows.jsonl", num_heldout=4, skip_bad=True)})
    assert "1 bad row left out" in sft_data(skipped, tmp_path).note


LONG = {"messages": [{"role": "user", "content": "x" * 9000}, {"role": "assistant", "content": "no"}]}


def test_parts_of_one_conversation_are_trained_or_held_out_together(model: FakeModel, settings: SftTrain, tmp_path: Path) -> None:
    def conversation(at: int) -> dict[str, Any]:
        """Of its three replies the second is not trained: two examples."""
        turns: list[dict[str, Any]] = []
        for reply in range(3):
            turns += [{"role": "user", "content": f"{at}"}, {"role": "assistant", "content": "yes", "weight": int(reply != 1)}]
        return {"messages": turns}

    write_rows("rows.jsonl", [conversation(at) for at in range(6)])
    found = sft_data(settings.model_copy(update={"data": SftData(source="rows.jsonl", num_heldout=3)}), tmp_path)
    rows_of = [{one.messages[0].content for one in part if isinstance(one, SftExample)} for part in (found.train, found.heldout)]
    assert (len(found.train), len(found.heldout)) == (8, 4)
    assert not rows_of[0] & rows_of[1]


async def test_rows_that_only_their_tokens_give_away_stop_a_run_before_it_is_made(
    model: FakeModel, settings: SftTrain, tmp_path: Path
) -> None:
    write_rows("rows.jsonl", [*rows(3), LONG, *rows(12)])
    with pytest.raises(InputError, match=r"1 row of 16 .*\n.*rows.jsonl, line 4 has 9\d+ tokens and the model's context is 8192") as raised:
        await sft.train(settings, SilentProgress(), home=tmp_path / "home", run="one")
    assert 'when_too_long="drop"' in str(raised.value.hint)
    assert not (tmp_path / "home").exists()
    with pytest.raises(InputError, match=r"rows.jsonl, line 4 has"):
        check(settings, tmp_path)
    # Mended, the same id is free; left out, the rest is trained.
    data = SftData(source="rows.jsonl", num_heldout=4, skip_bad=True)
    found = sft_data(settings.model_copy(update={"data": data}), tmp_path)
    assert "1 bad row left out" in found.note
    assert [fault.partition(" has ")[0] for fault in found.faults] == ["rows.jsonl, line 4"]
    assert len(found.train) + len(found.heldout) == 15
    # Left to the trainer, which drops and counts it, it is no fault.
    dropped = settings.model_copy(update={"sft": settings.sft.model_copy(update={"when_too_long": "drop"})})
    assert len(sft_data(dropped, tmp_path).train) == 12


async def test_a_conversation_that_the_template_refuses_is_told_by_its_line(
    model: FakeModel, settings: SftTrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(base: str) -> Renderer:
        renderer = model.renderer(base)
        strict = "{% for one in messages %}{% if 'seven' in one.content %}{{ raise_exception('no sevens') }}{% endif %}"
        text = strict + "<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
        renderer.template = replace(renderer.template, text=text)
        return renderer

    monkeypatch.setattr(run_data, "open_renderer", refusing)
    seven = {"messages": [{"role": "user", "content": "seven"}, {"role": "assistant", "content": "7"}]}
    write_rows("rows.jsonl", [*rows(5), seven])
    with pytest.raises(InputError, match=r"rows.jsonl, line 6: the model's chat template refuses .*no sevens"):
        sft_data(settings, tmp_path)


async def test_pairs_of_equal_tokens_and_too_long_ones_stop_a_run_before_it_is_made(
    model: FakeModel, pairs: DpoTrain, tmp_path: Path
) -> None:
    same = {"prompt": "Say", "chosen": " yes", "rejected": " yes<|im_end|>"}
    long = {"prompt": "Say", "chosen": " yes", "rejected": "x" * 9000}
    write_rows("pairs.jsonl", [*good_pairs(), same, long])
    said = r"(?s)2 rows of 14 .*the chosen tokens of pairs.jsonl, line 13 equal .*pairs.jsonl, line 14 has 9\d+ tokens"
    with pytest.raises(InputError, match=said):
        await dpo.train(pairs, SilentProgress(), home=tmp_path / "home", run="one")
    assert not (tmp_path / "home").exists()
    kept = dpo_data(pairs.model_copy(update={"data": DpoData(source="pairs.jsonl", num_heldout=4, skip_bad=True)}), tmp_path)
    assert "2 bad rows left out" in kept.note
    assert len(kept.train) == 8
    dropping = pairs.model_copy(update={"dpo": Dpo(batch_size=2, when_equal="drop", when_too_long="drop")})
    assert len(dpo_data(dropping, tmp_path).train) == 10


def test_the_shipped_data_is_what_the_programs_write() -> None:
    written = {
        "orders.jsonl": imitate.conversations(),
        "short_answers.jsonl": prefer.pairs()[0],
        "short_answers_heldout.jsonl": prefer.pairs()[1],
    }
    for name, made in written.items():
        assert [json.loads(line) for line in (CONFIGS / name).read_text(encoding="utf-8").splitlines()] == made
    assert len({json.dumps(one) for one in imitate.conversations()}) == 160
    prompts = [{json.dumps(one["prompt"]) for one in part} for part in prefer.pairs()]
    assert not prompts[0] & prompts[1]
