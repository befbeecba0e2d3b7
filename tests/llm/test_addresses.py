"""An address that no client can call is wrong input, whoever calls it."""

from __future__ import annotations

import pytest

from journeyman.client.backend import connect
from journeyman.errors import JourneymanError, McpError
from journeyman.llm import Llm, LlmEndpoint, LlmSettings
from journeyman.mcp import McpTarget, open_server

ASK = [{"role": "user", "content": "Hi"}]
BAD_HOSTS = [
    "http://x\u201d.example/v1",
    "http://a b/v1",
    "http://:80/v1",
    "http://h:99999/v1",
    "http://[::g]/v1",
    "http://%zz\u2603\u200b./v1",
    "h:8000/v1",
]


@pytest.mark.parametrize("url", BAD_HOSTS)
async def test_an_address_that_no_client_can_call_is_wrong_input_at_every_door(url: str) -> None:
    for ask in (ask_model, ask_own_server, ask_mcp):
        with pytest.raises(JourneymanError) as caught:
            await ask(url)
        assert caught.value.exit_code == 2 or isinstance(caught.value, McpError)
        assert caught.value.reason == "no_url"


async def ask_model(url: str) -> None:
    async with Llm(LlmEndpoint.parse("m", url), settings=LlmSettings(max_retries=0)) as llm:
        await llm.complete(ASK)


async def ask_own_server(url: str) -> None:
    async with connect(url) as backend:
        await backend.health()


async def ask_mcp(url: str) -> None:
    async with open_server(McpTarget(url=url), start_timeout_seconds=5):
        pass
