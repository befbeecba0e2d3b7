"""A model that is opened again goes on from the newest checkpoint that can be read, and nobody mistakes it for another step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.reasons import has_reason
from tests.service.fakes import FakeTrainer
from tests.service.house import CREATE, House, train_once

from journeyman.chat.renderer import Renderer
from journeyman.engine.fake import FakeEngine
from journeyman.errors import AdapterError, StoreError
from journeyman.service.backend import Backend
from journeyman.service.trainable import Computing
from journeyman.store import Store
from journeyman.store.locks import RunLock
from journeyman.types.training import CreateModel


async def trained(house: House, num_steps: int) -> Path:
    """A run of so many steps that was stopped; the folder of its checkpoints."""
    backend = house.start()
    await backend.create_model(CREATE)
    for number in range(num_steps):
        await train_once(backend, key=f"train-{number}")
    await house.stop(backend)
    return house.home / "runs" / "r" / "checkpoints"


def zero(path: Path) -> None:
    """Other bytes of the same number."""
    path.write_bytes(bytes(path.stat().st_size))


def without_hashes(checkpoint: Path) -> None:
    """As an earlier version wrote it."""
    manifest = checkpoint / "checkpoint.json"
    manifest.write_text(json.dumps({name: value for name, value in json.loads(manifest.read_text()).items() if name != "sha256"}))


def rows(backend: Backend) -> list[int]:
    return [row.step for row in backend.store.runs.steps("r")]


class TestFallback:
    @pytest.mark.parametrize("file", ["state.json", "random.json", "checkpoint.json"])
    async def test_damage_that_keeps_a_files_size_is_survived_and_told(self, house: House, file: str) -> None:
        folder = await trained(house, 3)
        zero(folder / "step-000003" / file)
        backend = house.start()
        assert (await backend.create_model(CREATE)).step == 2
        damaged, later = backend.opening_notes("m")
        assert f"{folder / 'step-000003'} is damaged (" in damaged
        assert file in damaged
        assert "from step 2" in damaged
        assert "(steps 3 to 3)" in later
        assert backend.opening_notes("m") == ()

    async def test_rows_and_keys_of_later_steps_are_gone_and_those_steps_are_made_again(self, house: House) -> None:
        folder = await trained(house, 4)
        weight = house.trainer.weight
        for step in (3, 4):
            zero(folder / f"step-00000{step}" / "state.json")
        backend = house.start()
        await backend.create_model(CREATE)
        assert rows(backend) == [1, 2]
        assert backend.store.runs.get("r").step == 2
        for number in (2, 3):
            status = await train_once(backend, key=f"train-{number}")
            assert status.result is not None
            assert status.result.step == number + 1
        assert rows(backend) == [1, 2, 3, 4]
        assert house.trainer.weight == weight
        assert sorted(path.name.partition("0000")[0] for path in folder.iterdir() if "damaged" in path.name) == ["damaged-step-"] * 2
        await house.stop(backend)
        again = house.start()
        assert (await again.create_model(CREATE)).step == 4
        assert again.opening_notes("m") == ()

    async def test_a_program_that_does_not_ask_is_told_with_its_first_step(self, house: House, caplog: pytest.LogCaptureFixture) -> None:
        folder = await trained(house, 2)
        zero(folder / "step-000002" / "state.json")
        backend = house.start()
        await backend.create_model(CREATE)
        first, second = await train_once(backend), await train_once(backend)
        assert first.result is not None
        assert second.result is not None
        assert any("step-000002 is damaged" in note for note in first.result.notes)
        assert caplog.text.count("step-000002 is damaged") == 1
        assert not any("damaged" in note for note in second.result.notes)

    async def test_a_checkpoint_that_holds_another_adapter_than_was_published_is_not_taken(self, house: House) -> None:
        folder = await trained(house, 2)
        bad = folder / "step-000002"
        without_hashes(bad)
        state = json.loads((bad / "state.json").read_text())
        (bad / "state.json").write_text((bad / "state.json").read_text().replace(str(state[1]), str(state[1] + 1)))
        backend = house.start()
        assert (await backend.create_model(CREATE)).step == 1
        assert "fingerprint" in backend.opening_notes("m")[0]

    async def test_checkpoints_without_hashes_are_gone_on_from(self, house: House) -> None:
        folder = await trained(house, 2)
        for checkpoint in folder.iterdir():
            without_hashes(checkpoint)
        backend = house.start()
        assert (await backend.create_model(CREATE)).step == 2
        assert backend.opening_notes("m") == ()


class TestPublishedFolder:
    @pytest.mark.parametrize("damage", ["other bytes", "gone"])
    async def test_one_that_cannot_be_loaded_is_written_anew_from_its_checkpoint(self, house: House, damage: str) -> None:
        await trained(house, 2)
        adapter = house.home / "runs" / "r" / "adapters" / "m@2"
        before = (adapter / "adapter.json").read_bytes()
        if damage == "gone":
            shutil.rmtree(adapter)
        else:
            zero(adapter / "adapter.json")
        backend = house.start()
        assert (await backend.create_model(CREATE)).step == 2
        (note,) = backend.opening_notes("m")
        assert note.startswith("version m@2 could not be loaded (")
        assert (adapter / "adapter.json").read_bytes() == before
        assert "m@2" in backend.engine.adapters()
        await house.stop(backend)
        again = house.start()
        await again.create_model(CREATE)
        assert again.opening_notes("m") == ()

    async def test_one_of_an_earlier_step_does_not_matter_until_it_is_asked_for(self, house: House) -> None:
        await trained(house, 3)
        zero(house.home / "runs" / "r" / "adapters" / "m@1" / "adapter.json")
        backend = house.start()
        assert (await backend.create_model(CREATE)).step == 3
        assert backend.opening_notes("m") == ()
        with pytest.raises(AdapterError, check=has_reason("other_weights")):
            async with backend.weights.using("m@1"):
                pass


class TestNothingReadable:
    async def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_nothing_of_it_changes(self, house: House) -> None:
        folder = await trained(house, 2)
        zero(folder / "step-000002" / "state.json")
        (folder / "step-000001" / "checkpoint.json").write_text("{")
        (folder / "step-000000" / "checkpoint.json").unlink()
        before = sorted(path.relative_to(house.home) for path in (house.home / "runs").rglob("*"))
        backend = house.start()
        with pytest.raises(StoreError, check=has_reason("no_checkpoint")) as caught:
            await backend.create_model(CREATE)
        for step, reason in ((2, "other bytes than were written: state.json"), (1, "cannot be read"), (0, "it has no checkpoint.json")):
            assert str(folder / f"step-00000{step}") in caught.value.message
            assert reason in caught.value.message
        assert sorted(path.relative_to(house.home) for path in (house.home / "runs").rglob("*")) == before
        assert rows(backend) == [1, 2]

    async def test_a_run_whose_checkpoints_are_gone_is_refused_as_long_as_it_has_trained_versions(self, house: House) -> None:
        shutil.rmtree(await trained(house, 1))
        with pytest.raises(StoreError, check=has_reason("no_checkpoint")):
            await house.start().create_model(CREATE)

    async def test_a_run_that_was_stopped_before_its_first_checkpoint_begins(self, house: House) -> None:
        shutil.rmtree(await trained(house, 0))
        assert (await house.start().create_model(CREATE)).step == 0


class TestHolding:
    async def test_a_run_that_is_held_is_nobody_elses_from_then_on(self, house: House) -> None:
        first, second = house.start(), house.start()
        first.hold_run("r")
        first.hold_run("r")
        with pytest.raises(StoreError, check=has_reason("run_in_use")):
            second.hold_run("r")
        with pytest.raises(StoreError, check=has_reason("run_in_use")):
            await second.create_model(CREATE)
        assert second.store.runs.list() == ()
        assert (await first.create_model(CREATE)).step == 0
        await house.stop(first)
        assert (await second.create_model(CREATE)).step == 0

    async def test_a_run_stays_held_when_its_model_cannot_be_opened(self, house: House) -> None:
        folder = await trained(house, 1)
        shutil.rmtree(folder)
        backend = house.start()
        backend.hold_run("r")
        with pytest.raises(StoreError, check=has_reason("no_checkpoint")):
            await backend.create_model(CREATE)
        with pytest.raises(StoreError, check=has_reason("run_in_use")):
            RunLock(folder.parent / ".training.lock", "r")


class Machine:
    """Makes trainers that compute as they did before, but for the version of torch."""

    def __init__(self, torch: str) -> None:
        self.torch = torch
        self.before: list[Computing] = []

    def __call__(self, request: CreateModel, before: Computing) -> tuple[FakeTrainer, Computing]:
        self.before.append(before)
        return FakeTrainer(), {"num_workers": before.get("num_workers", 3), "torch": self.torch}


class TestComputing:
    async def notes(self, house: House, machine: Machine) -> tuple[str, ...]:
        """What is told on one of several machines that go on with a run."""
        engine = FakeEngine(lambda prompt: "hello", house.tokenizer, base="fake-model")
        backend = Backend(engine, Renderer(house.tokenizer, 2048), Store.open(house.home), machine)
        await backend.create_model(CREATE)
        notes = backend.opening_notes("m")
        await train_once(backend)
        await backend.close()
        return notes

    async def test_a_run_is_computed_as_before_where_the_machine_can_and_told_where_it_cannot(self, house: House) -> None:
        old, new = Machine("2.13"), Machine("2.14")
        assert await self.notes(house, old) == ()
        assert await self.notes(house, old) == ()
        (told,) = await self.notes(house, new)
        assert "(torch 2.13 -> 2.14)" in told
        assert await self.notes(house, new) == ()
        assert old.before == [{}, {"num_workers": 3, "torch": "2.13"}]
