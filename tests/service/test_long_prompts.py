"""A long prompt is rendered beside the event loop: every other call goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.service.test_sampling import KnownVersions, World, chat

from journeyman.chat.renderer import Renderer
from journeyman.errors import ContextLengthError
from journeyman.service.requests import CompletionRequest
from journeyman.service.sampling import SamplingService
from journeyman.store import Store


class Watched(Renderer):
    """Notes whether an event loop was running where a text was turned into tokens."""

    on_loop: list[bool]

    def render(self, *arguments: Any) -> tuple[int, ...]:
        self.note()
        return super().render(*arguments)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        self.note()
        return super().encode_prompt(text)

    def note(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.on_loop.append(False)
        else:
            self.on_loop.append(True)


async def drain(pieces: AsyncGenerator[Any]) -> None:
    async for _ in pieces:
        pass


async def test_a_long_prompt_does_not_hold_the_loop(tiny_tokenizer: Any, tmp_path: Path) -> None:
    text = "many words " * 2000
    with Store.open(tmp_path) as store:
        world = World(tiny_tokenizer, store)
        renderer = Watched(tiny_tokenizer, 512)
        renderer.on_loop = []
        service = SamplingService(world.engine, renderer, world.recorder, KnownVersions())
        message = {"role": "user", "content": text}
        completion = CompletionRequest(model="base", prompt=text)
        for call in (
            service.chat(chat(message)),
            drain(service.stream_chat(chat(message))),
            service.complete(completion),
            drain(service.stream_completion(completion)),
        ):
            with pytest.raises(ContextLengthError):
                await call
    assert renderer.on_loop == [False] * 4
