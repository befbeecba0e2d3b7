"""Models, training jobs and runs over HTTP."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

import journeyman as jm
from journeyman.errors import InputError

USER = {"role": "user", "content": "Say hi."}


async def call(api: AsyncOpenAI, method: str, path: str, body: Any = None, **headers: str) -> Any:
    options: Any = {"headers": {name.replace("_", "-"): value for name, value in headers.items()}}
    if method == "get":
        return await api.get(path, cast_to=object, options=options)
    return await api.post(path, cast_to=object, body=body, options=options)


async def rollout(running: Any, api: AsyncOpenAI, model: str) -> str:
    ticket = await call(api, "post", "/api/rollouts", {"model": model, "scenario_id": "s"})
    async with AsyncOpenAI(base_url=f"{running.url}/r/{ticket['id']}.{ticket['token']}/v1", api_key=ticket["token"]) as agent:
        await agent.chat.completions.create(model="agent", messages=[USER])  # type: ignore[list-item]
    await call(api, "post", f"/api/rollouts/{ticket['id']}/finish", {})
    return str(ticket["id"])


async def test_a_model_is_created_trained_and_served_in_its_new_version(running: Any) -> None:
    async with AsyncOpenAI(base_url=running.url, api_key="none") as api:
        info = await call(api, "post", "/api/models", {"name": "m", "run": "r1"})
        assert (info["step"], info["adapter"]) == (0, "m@0")
        ids = [await rollout(running, api, "m") for _ in range(2)]
        scored = [{"trajectory_id": ids[0], "reward": 1.0}, {"trajectory_id": ids[1], "reward": 0.0}]
        job = {"kind": "grpo", "groups": [{"scenario_id": "s", "trajectories": scored}]}
        queued = await call(api, "post", "/api/models/m/train", job, idempotency_key="k1")
        status = await call(api, "get", f"/api/jobs/{queued['id']}?wait_seconds=25")
        assert (status["state"], status["error"], status["result"]["adapter"]) == ("done", None, "m@1")
        assert (await call(api, "post", "/api/models/m/train", job, idempotency_key="k1"))["id"] == queued["id"]
        assert (await call(api, "get", "/api/models/m"))["adapter"] == "m@1"
        await rollout(running, api, "m")
        assert running.engine.requests[-1].adapter == "m@1"
        steps = await call(api, "get", "/api/runs/r1/steps")
        assert [(step["phase"], step["step"]) for step in steps] == [("train", 1)]
        names = [model["id"] for model in (await call(api, "get", "/v1/models"))["data"]]
        assert names == ["base", "fake-model", "m", "m@0", "m@1"]


async def test_a_client_that_hangs_up_is_not_kept_waiting_for_so_that_a_server_stops_at_once(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()

    async def wait(job_id: str, seconds: float) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    monkeypatch.setattr(running.backend.jobs, "wait", wait)
    async with AsyncOpenAI(base_url=running.url, api_key="none", max_retries=0, timeout=0.3) as api:
        with pytest.raises(openai.APITimeoutError):
            await call(api, "get", "/api/jobs/job_1?wait_seconds=25")
    assert await asyncio.to_thread(given_up.wait, 20)


async def test_a_rollout_stays_on_its_version_while_the_model_is_trained(running: Any) -> None:
    async with AsyncOpenAI(base_url=running.url, api_key="none") as api:
        await call(api, "post", "/api/models", {"name": "m", "run": "r1"})
        ticket = await call(api, "post", "/api/rollouts", {"model": "m", "scenario_id": "s"})
        examples = [{"messages": [USER, {"role": "assistant", "content": "hi"}]}]
        for _ in range(4):
            queued = await call(api, "post", "/api/models/m/train", {"kind": "sft", "examples": examples})
            assert (await call(api, "get", f"/api/jobs/{queued['id']}?wait_seconds=25"))["state"] == "done"
        async with AsyncOpenAI(base_url=f"{running.url}/r/{ticket['id']}.{ticket['token']}/v1", api_key="x") as agent:
            await agent.chat.completions.create(model="m", messages=[USER])  # type: ignore[list-item]
        assert (ticket["model"], running.engine.requests[-1].adapter) == ("m@0", "m@0")


async def test_runs_are_created_listed_and_read(running: Any) -> None:
    async with AsyncOpenAI(base_url=running.url, api_key="none") as api:
        created = await call(api, "post", "/api/runs", {"id": "r1", "kind": "mcp", "settings": {"steps": 3}})
        assert created["settings"] == {"steps": 3}
        assert [run["id"] for run in await call(api, "get", "/api/runs")] == ["r1"]
        assert (await call(api, "get", "/api/runs/r1"))["kind"] == "mcp"
        assert await call(api, "get", "/api/runs/r1/steps") == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("get", "/api/runs/nobody", None, 404, "not_found"),
        ("get", "/api/models/nobody", None, 404, "not_found"),
        ("get", "/api/jobs/nobody", None, 404, "not_found"),
        ("get", "/api/jobs/nobody?wait_seconds=soon", None, 400, "invalid_input"),
        ("get", "/api/rollouts/nobody", None, 404, "not_found"),
        ("post", "/api/rollouts/nobody/finish", {}, 404, "not_found"),
        ("post", "/api/rollouts", {"model": "nobody", "scenario_id": "s"}, 404, "not_found"),
        ("post", "/api/rollouts", {"model": "base", "scenario_id": "s", "max_turn": 1}, 400, "invalid_input"),
        ("post", "/api/models", {"name": "a/b", "run": "r"}, 400, "invalid_input"),
        ("post", "/api/models/nobody/train", {"kind": "sft", "examples": []}, 404, "not_found"),
        ("post", "/api/models/nobody/train", {"kind": "dpo"}, 400, "invalid_input"),
        ("post", "/api/runs", {"id": "r"}, 400, "invalid_input"),
    ],
)
async def test_unusable_requests_are_refused_with_a_code(running: Any, method: str, path: str, body: Any, status: int, code: str) -> None:
    async with AsyncOpenAI(base_url=running.url, api_key="none") as api:
        with pytest.raises(openai.APIStatusError) as caught:
            await call(api, method, path, body)
    assert (caught.value.status_code, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/api/models", {"name": "base", "run": "r"}, "reserved_name"),
        ("/api/models", {"name": "fake-model", "run": "r"}, "reserved_name"),
        ("/api/models", {"name": "x@3", "run": "r"}, "invalid_name"),
        ("/api/models", {"name": "m", "run": "../../x"}, "invalid_name"),
        ("/api/models", {"name": "my model", "run": "r"}, "invalid_name"),
        ("/api/runs", {"id": "..", "kind": "k"}, "invalid_name"),
        ("/api/runs", {"id": "a\u200b", "kind": "k"}, "invalid_name"),
    ],
)
async def test_names_that_cannot_be_used_are_refused_before_anything_is_made(
    running: Any, path: str, body: dict[str, Any], reason: str
) -> None:
    async with AsyncOpenAI(base_url=running.url, api_key="none") as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await call(api, "post", path, body)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["reason"] == reason
    assert running.backend.store.runs.list() == ()
    assert not running.backend.store.home.runs.exists()


@pytest.mark.parametrize("name", ["..%2F..%2Fx", "%2e%2e", "..%5Cx", "a%00b", "%2Ftmp%2Fx", "m%40..%2F3"])
@pytest.mark.parametrize(
    "path", ["/api/runs/{}", "/api/runs/{}/steps", "/api/models/{}", "/api/rollouts/{}", "/api/jobs/{}", "/v1/models/{}"]
)
async def test_an_encoded_name_in_an_address_finds_nothing(running: Any, path: str, name: str) -> None:
    def status() -> int:
        try:
            with urllib.request.urlopen(running.url + path.format(name), timeout=20) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert await asyncio.to_thread(status) == 404


async def test_the_client_refuses_such_names_itself(running: Any) -> None:
    async with jm.connect(running.url) as connection:
        for ask in (connection.run("a/../b"), connection.steps("r?x"), connection.trajectory("../runs"), connection.model("my run")):
            with pytest.raises(InputError) as caught:
                await ask
            assert caught.value.reason == "invalid_name"


async def test_health_names_engine_and_version(running: Any) -> None:
    async with AsyncOpenAI(base_url=running.url, api_key="none") as api:
        health = await call(api, "get", "/healthz")
    assert (health["status"], health["engine"]["base"]) == ("ok", "fake-model")
