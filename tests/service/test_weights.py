"""Versions are published whole or not at all, and none is taken away from somebody who uses it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.service.house import CREATE, House, scored_group, served_version, train_once

from journeyman.errors import StoreError
from journeyman.service.requests import ChatRequest
from journeyman.service.sampling import CallContext
from journeyman.types.messages import Message
from journeyman.types.settings import Retention
from journeyman.types.training import CreateRollout, GrpoJob


async def test_a_publish_that_a_full_disk_stopped_leaves_nothing_loaded_and_the_next_one_works(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = house.start()
    await backend.create_model(CREATE)
    await train_once(backend)

    def full(*_: Any) -> None:
        raise StoreError("cannot write the database: No space left on device", hint="free some disk space")

    monkeypatch.setattr(backend.store.models, "add_adapter", full)
    status = await train_once(backend)
    assert (status.state, status.error_code) == ("failed", "store_failed")
    assert backend.engine.adapters() == ("m@0", "m@1")
    assert served_version(backend, "m") == "m@1"
    monkeypatch.undo()
    again = await train_once(backend)
    assert again.error is None
    assert (backend.model_info("m").step, served_version(backend, "m")) == (2, "m@2")


async def test_a_version_that_a_rollout_opens_with_while_it_is_being_unloaded_stays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = house.start(retention=Retention(checkpoints=1, adapters=1, best=0))
    await backend.create_model(CREATE)
    await train_once(backend)
    unload, begun, go_on = backend.engine.unload_adapter, asyncio.Event(), asyncio.Event()

    async def slow(name: str) -> None:
        begun.set()
        await go_on.wait()
        await unload(name)

    monkeypatch.setattr(backend.engine, "unload_adapter", slow)
    job = backend.train("m", GrpoJob(groups=(await scored_group(backend, 1.0, 0.0),)))
    await asyncio.wait_for(begun.wait(), 30)
    ticket = await backend.open_rollout(CreateRollout(model="m@1", scenario_id="s"))
    go_on.set()
    assert (await backend.jobs.wait(job.id, 30)).state == "done"
    session = await backend.recorder.session(ticket.id, ticket.token)
    request = ChatRequest(model="agent", messages=(Message(role="user", content="hi"),), seed=1)
    await backend.sampling.chat(request, CallContext(session, body_hash="1", retry_count=0))
    assert [row.step for row in backend.store.models.adapters("r", "m")] == [0, 1, 2]
    assert (house.home / "runs" / "r" / "adapters" / "m@1").is_dir()


async def test_a_version_that_cannot_be_withdrawn_for_want_of_space_is_still_served(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = house.start(retention=Retention(checkpoints=1, adapters=1, best=0))
    await backend.create_model(CREATE)
    await train_once(backend)

    def full(*_: Any) -> None:
        raise StoreError("cannot write the database: No space left on device")

    monkeypatch.setattr(backend.store.models, "retire_adapter", full)
    status = await train_once(backend)
    assert status.result is not None
    assert "older ones could not be deleted" in status.result.notes[-1]
    async with backend.weights.using("m@1"):
        assert "m@1" in backend.engine.adapters()
    monkeypatch.undo()
    await train_once(backend)
    assert [row.step for row in backend.store.models.adapters("r", "m")] == [0, 3]
