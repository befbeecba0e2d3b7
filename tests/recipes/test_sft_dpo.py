"""The SFT and DPO recipes from data to report and result.json, with a fake model and a trainer without gradients."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.recipes.backend import FakeModel
from tests.recipes.conftest import RecordingProgress
from tests.recipes.test_grpo import FUNCTIONS, only_run, result_of
from tests.service.fakes import FakeTrainer

from journeyman.errors import InputError, NotFoundError, SettingError
from journeyman.observe.progress import SilentProgress
from journeyman.recipes import dpo, grpo, imitate, open_run, prefer, sft
from journeyman.recipes.dpo_settings import DpoData, DpoTrain
from journeyman.recipes.example_data import dpo_data, sft_data
from journeyman.recipes.grpo_settings import ChatOrFunction, GrpoTrain
from journeyman.recipes.sft_settings import SftData, SftTrain
from journeyman.recipes.shipped import CONFIGS
from journeyman.store import Store
from journeyman.types.settings import Dpo, Sft
from journeyman.types.training import StoredExample, StoredPair


@pytest.fixture
def model(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel(tiny_tokenizer)
    monkeypatch.setattr(open_run, "open_backend", fake.open)
    return fake


def write_rows(name: str, lines: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows(number: int) -> list[dict[str, Any]]:
    """Conversations whose reply the fake model gives at every second attempt: the call that doubles the number."""
    call = '<tool_call>\n{{"name": "double", "arguments": {{"number": {0}}}}}\n</tool_call>'
    asked = [{"role": "user", "content": f"Double {at}."} for at in range(number)]
    return [{"messages": [one, {"role": "assistant", "content": call.format(at)}]} for at, one in enumerate(asked)]


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
    lines: list[dict[str, Any]] = [{"prompt": f"Double {at}.", "chosen": f"{2 * at}", "rejected": "no idea"} for at in range(1, 13)]
    write_rows("pairs.jsonl", lines)
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
        assert result.final["heldout/gain"] == 1.0
        rates = [step["train/learning_rate"] for step in result.steps]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == settings.sft.learning_rate
        assert rates[-1] == pytest.approx(0.1 * rates[0])
        assert any(note.startswith("12 rows read as messages") and "8 to train on, 4 held out" in note for note in progress.notes)
        assert only_run(tmp_path).kind == "sft"

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
        with pytest.raises(SettingError, match="not those that this run began with"):
            await sft.train(few, SilentProgress(), home=tmp_path / "home", run="one", is_resumed=True)

    async def test_held_out_examples_may_stand_apart(self, settings: SftTrain, tmp_path: Path) -> None:
        write_rows("apart.jsonl", rows(20)[14:])
        data = sft_data(
            settings.model_copy(update={"data": SftData(source="rows.jsonl", heldout_source="apart.jsonl", num_heldout=3)}), tmp_path
        )
        assert (len(data.train), len(data.heldout)) == (12, 3)
        assert "held out: 6 rows" in data.note


class TestDpo:
    async def test_a_run_ends_with_held_out_pairs_over_the_steps(self, model: FakeModel, pairs: DpoTrain, tmp_path: Path) -> None:
        report = await dpo.train(pairs, SilentProgress(), home=tmp_path, run="one")
        assert [step.step for step in report.steps if step.phase == "train"] == [1, 2]
        assert [step.step for step in report.steps if step.phase == "eval"] == [0, 1, 2]
        assert report.evaluations == ()
        result = result_of(tmp_path, "one")
        assert (result.method, len(result.steps)) == ("dpo", 2)
        assert {"heldout/ranked_right", "heldout/ranked_right_before", "heldout/loss", "heldout/loss_before"} <= result.final.keys()
        assert result.final["train/chosen_logprob_change"] == 0.0

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
        assert "0.40 nats a token less likely" in told

    async def test_it_goes_on_from_a_stop(self, model: FakeModel, pairs: DpoTrain, tmp_path: Path) -> None:
        await dpo.train(pairs.model_copy(update={"steps": 1}), SilentProgress(), home=tmp_path, run="one")
        report = await dpo.train(pairs, SilentProgress(), home=tmp_path, run="one", is_resumed=True)
        assert [step.step for step in report.steps if step.phase == "train"] == [1, 2]


class TestFromRun:
    @pytest.fixture
    async def home(self, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A home folder with a GRPO run whose attempts have rewards."""
        (tmp_path / f"functions_of_{tmp_path.name.replace('-', '_')}.py").write_text(FUNCTIONS)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.path", [*__import__("sys").path])
        name = f"functions_of_{tmp_path.name.replace('-', '_')}"
        tried = GrpoTrain(
            base="fake-model",
            scenarios=f"{name}.tasks",
            num_train=6,
            num_heldout=2,
            # Scores itself, so that attempts at held-out tasks have stored rewards too.
            rollout=ChatOrFunction(function=f"{name}.agent"),
            steps=2,
            groups_per_step=3,
            group_size=4,
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
        with pytest.raises(NotFoundError, match="there is no run 'none'"):
            sft_data(settings.model_copy(update={"data": SftData(from_run="none")}), home)
        with pytest.raises(SettingError, match="is of base 'fake-model', not 'other'"):
            sft_data(settings.model_copy(update={"base": "other"}), home)
        with pytest.raises(InputError, match="there is no home folder"):
            sft_data(settings, tmp_path / "nowhere")
        with pytest.raises(SettingError, match=r"6 attempts of run tried .* none is left to train on"):
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


async def test_bad_rows_stop_a_run_before_anything_is_made_or_are_left_out_and_counted(settings: SftTrain, tmp_path: Path) -> None:
    write_rows("rows.jsonl", [*rows(12), {"messages": []}])
    with pytest.raises(InputError, match=r"rows.jsonl, line 13"):
        await sft.train(settings, SilentProgress(), home=tmp_path / "home", run="one")
    assert not (tmp_path / "home").exists()
    skipped = settings.model_copy(update={"data": SftData(source="rows.jsonl", num_heldout=4, skip_bad=True)})
    assert "1 bad row left out" in sft_data(skipped, tmp_path).note


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
