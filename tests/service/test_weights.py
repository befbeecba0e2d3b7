"""Versions are published whole or not at all, and none is taken away from somebody who uses it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.service.house import CREATE, House, train_once

from journeyman.errors import StoreError


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
    assert backend.weights.resolve("m") == "m@1"
    monkeypatch.undo()
    again = await train_once(backend)
    assert again.error is None
    assert (backend.model_info("m").step, backend.weights.resolve("m")) == (2, "m@2")
