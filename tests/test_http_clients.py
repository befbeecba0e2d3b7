"""Proxies and redirects of every client of ours: loopback without a proxy, keys to nobody they are not for."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm_server import Answer, scripted, serve

import journeyman as jm
from journeyman.agents.conversation import Conversation
from journeyman.cli import doctor
from journeyman.client.backend import connect
from journeyman.errors import JourneymanError, LlmError, McpError, ServiceError, SettingError
from journeyman.http_clients import is_loopback, proxy_of, without_credentials, without_proxy
from journeyman.llm import Llm, LlmEndpoint, LlmSettings, open_openai
from journeyman.mcp import McpTarget, open_server
from journeyman.mcp.tools import McpTool
from journeyman.scenarios import CompletionProposer

ASK = [{"role": "user", "content": "Hi"}]
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def ask_llm(url: str) -> None:
    async with Llm(LlmEndpoint.parse("m", url), api_key="sk-geheim", settings=LlmSettings(max_retries=0)) as llm:
        await llm.complete(ASK)


async def ask_foreign_model(url: str) -> None:
    model = jm.Model("m", url, "sk-geheim")
    try:
        await model.openai().with_options(max_retries=0).chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    finally:
        await model.close()


async def stream_chat(url: str) -> None:
    async with open_openai(url, "sk-geheim", max_retries=0) as client:
        async for _ in Conversation(client, "m").say("Hi"):
            pass


async def ask_proposer(url: str) -> None:
    proposer = CompletionProposer(url, "sk-geheim")
    try:
        tool = McpTool(name="f", server_name="f", parameters={"type": "object", "properties": {"a": {"type": "string"}}})
        await proposer.propose(tool, "a", {"type": "string"}, ["x"], 1)
    finally:
        await proposer.close()


async def ask_own_server(url: str) -> None:
    async with connect(url, "sk-geheim") as backend:
        await backend.health()


async def ask_mcp(url: str) -> None:
    async with open_server(McpTarget(url=f"{url}/mcp", headers={"X-Key": "sk-geheim"}), start_timeout_seconds=5):
        pass


Ask = Callable[[str], Awaitable[None]]
CLIENTS = {"llm": ask_llm, "model": ask_foreign_model, "chat": stream_chat, "proposer": ask_proposer, "own": ask_own_server, "mcp": ask_mcp}
ASKING = {name: ask for name, ask in CLIENTS.items() if name not in ("proposer", "own", "mcp")}

PROXIES = [
    {"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"},
    {"ALL_PROXY": "socks5://127.0.0.1:1"},
    {"all_proxy": "socks5h://me:geheim@127.0.0.1:1", "NO_PROXY": "example.com"},
    {"http_proxy": "nonsense://x", "https_proxy": "http://[", "NO_PROXY": "[,*.,::"},
    {"HTTP_PROXY": ":::", "NO_PROXY": "10.0.0.0/8"},
]


@pytest.mark.parametrize("proxies", PROXIES)
@pytest.mark.parametrize("name", ASKING)
async def test_loopback_is_reached_whatever_proxy_is_set(name: str, proxies: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in proxies.items():
        monkeypatch.setenv(variable, value)
    with serve(scripted("fine")) as server:
        await ASKING[name](server.base_url)
        await ASKING[name](server.base_url.replace("127.0.0.1", "localhost"))
        assert len(server.requests) == 2


@pytest.mark.parametrize("proxies", PROXIES)
async def test_our_own_server_is_reached_whatever_proxy_is_set(proxies: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in proxies.items():
        monkeypatch.setenv(variable, value)
    with serve(scripted(Answer(body={"status": "ok"}))) as server:
        async with connect(server.base_url) as backend:
            assert await backend.health() == {"status": "ok"}


async def test_another_host_is_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(scripted("fine")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1").replace("://", "://me:geheim@"))
        await ask_llm("http://model.example/v1")
        assert len(proxy.requests) == 1
        monkeypatch.setenv("NO_PROXY", "model.example")
        monkeypatch.setenv("no_proxy", "model.example")
        assert proxy_of("http://model.example/v1") is None


@pytest.mark.parametrize(("name", "variable"), list(zip(CLIENTS, 3 * ("HTTP_PROXY", "ALL_PROXY"), strict=True)))
async def test_a_failure_names_the_proxy_that_is_in_force(name: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "http://me:geheim@127.0.0.1:1")
    with pytest.raises((LlmError, ServiceError, McpError, openai.APIConnectionError)) as caught:
        await CLIENTS[name]("http://model.example/v1")
    assert variable in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(("status", "reason"), [(200, "web_page"), (403, "forbidden"), (502, "outage")])
async def test_what_a_proxy_answers_names_it(status: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Answer(raw=b"<html>blocked</html>", status=status, headers={"content-type": "text/html"})
    with serve(scripted(page)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
        with pytest.raises(LlmError) as caught:
            await ask_llm("http://model.example/v1")
    assert caught.value.reason == reason
    assert "HTTP_PROXY" in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        "socks5://me:geheim@proxy:1080",
        "ftp://me:geheim@proxy",
        "http://me:geheim@",
        "http://me:ge/heim@pro xy",
        "http://me:geheim@proxy:0x",
        ":::",
    ],
)
@pytest.mark.parametrize("name", CLIENTS)
async def test_a_proxy_that_cannot_be_used_is_wrong_input(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(SettingError) as caught:
        await CLIENTS[name]("http://model.example/v1")
    assert (caught.value.reason, caught.value.exit_code) == ("bad_proxy", 2)
    assert "ALL_PROXY" in caught.value.message
    assert "heim" not in str(caught.value)
    check = doctor.proxies()
    assert check.state == "note"
    assert "ALL_PROXY" in check.found
    assert "heim" not in check.found + check.advice


async def test_certificates_that_are_not_there_are_wrong_input_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with serve(scripted("fine")) as server:
        await ask_llm(server.base_url)
    with pytest.raises(SettingError) as caught:
        await ask_llm("https://model.example/v1")
    assert (caught.value.reason, caught.value.exit_code) == ("bad_certificates", 2)


def test_doctor_shows_proxies_without_their_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.proxies().state == "fine"
    monkeypatch.setenv("HTTPS_PROXY", "http://me:geheim@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "example.com, 10.0.0.0/8")
    check = doctor.proxies()
    assert check.state == "fine"
    for part in ("HTTPS_PROXY", "proxy:3128", "example.com", "10.0.0.0/8"):
        assert part in check.found
    assert "geheim" not in check.found


@pytest.mark.parametrize(
    ("host", "is_proxied"),
    [
        ("127.0.0.1", False), ("127.8.8.8", False), ("127.1", False), ("[::1]", False), ("[::ffff:127.0.0.1]", False), ("LOCALHOST", False),
        ("0", False), ("0x0", False), ("0x7f000001", False), ("2130706433", False), ("0x08080808", True), ("face", True),
        ("localhost.", False), ("a.localhost", False), ("0.0.0.0", False), ("[::]", False), ("10.1.2.3", False), ("a.example.com", False),
        ("example.com", False), ("11.1.2.3", True), ("localhost.example.org", True), ("127.0.0.1.nip.io", True), ("notexample.com", True),
        ("128.0.0.1", True), ("[2001:db8::1]", True), ("ip6-localhost", False), ("localhost.localdomain", False), ("by.port", False),
    ],
)  # fmt: skip
def test_which_hosts_take_the_proxy(host: str, is_proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", " proxy:3128\n")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,example.com,by.port:8000")
    found = proxy_of(f"http://{host}:8000/v1")
    assert (found is not None) is is_proxied
    assert found is None or (found.variable, found.url) == ("HTTP_PROXY", "http://proxy:3128")


def test_an_agent_in_another_process_is_led_past_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_proxy("http://127.0.0.1:8100/v1") == {}
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1")
    monkeypatch.setenv("NO_PROXY", "example.com")
    assert without_proxy("http://gpu-box:8100/v1") == {}
    found = without_proxy("http://127.0.0.1:8100/v1")
    assert found["NO_PROXY"] == found["no_proxy"]
    assert {"example.com", "127.0.0.1", "localhost", "::1"} <= set(found["NO_PROXY"].split(","))


@given(st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_every_address_of_the_loopback_network_is_loopback(address: object) -> None:
    assert is_loopback(str(address))


@given(st.text(max_size=8), st.text(min_size=4, max_size=12).filter(lambda text: not set(text) & set("/?@")))
def test_a_shown_address_holds_no_password(user: str, password: str) -> None:
    shown = without_credentials(f"http://{user.replace('/', '').replace('?', '')}:{password}@h.example/v1")
    assert shown.endswith("@h.example/v1")
    assert password not in shown.removeprefix("http://").removesuffix("@h.example/v1")


# Redirects ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("name", CLIENTS)
async def test_no_key_follows_a_redirect_to_another_origin(name: str, status: int) -> None:
    with serve(scripted("fine")) as other:
        target = other.base_url.replace("://", "://me:pw@") + "/login?token=geheim"
        away = Answer(raw=b"", status=status, headers={"location": target})
        with serve(scripted(away)) as server, pytest.raises((JourneymanError, ExceptionGroup)) as caught:
            await CLIENTS[name](server.base_url)
        assert (other.requests, len(server.requests)) == ([], 1)
    error = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, JourneymanError)
    assert error.reason == "redirected"
    assert f"{other.base_url.partition('://')[2]}/login" in error.message
    assert "geheim" not in str(error)


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1:{port}/v1/chat/completions",
        "http://127.0.0.2:{port}/v1",
        "//evil.example/v1",
        "http://[",
        "ftp://127.0.0.1:{port}/",
    ],
)
async def test_another_scheme_host_or_port_is_another_origin(location: str) -> None:
    with serve(lambda _: Answer(raw=b"", status=307, headers={"location": location.replace("{port}", port)})) as server:
        port = str(re.findall(r":(\d+)", server.base_url)[0])
        with pytest.raises(LlmError) as caught:
            await ask_llm(server.base_url)
        assert (caught.value.reason, len(server.requests)) == ("redirected", 1)


@pytest.mark.parametrize("name", ASKING)
async def test_a_redirect_within_the_origin_is_followed_where_the_request_stays_what_it_is(name: str) -> None:
    answers = [Answer(raw=b"", status=308, headers={"location": "/v1/chat/completions"}), Answer("fine")]
    with serve(scripted(*answers)) as server:
        await ASKING[name](server.base_url)
        assert server.keys == ["Bearer sk-geheim"] * 2
    with serve(scripted(Answer(raw=b"", status=302, headers={"location": "/login"}))) as server:
        with pytest.raises(LlmError) as caught:
            await ASKING[name](server.base_url)
        assert (caught.value.reason, len(server.requests)) == ("redirected", 1)


# House rule -----------------------------------------------------------------------------------------------------------

SOURCES = Path(__file__).parents[1] / "src" / "journeyman"
MAKES_A_CLIENT = re.compile(
    r"\b(Async)?(OpenAI|AzureOpenAI)\(|\bhttpx2?\b|AsyncClient\(|create_mcp_http_client\(|\burlopen\b|import requests|aiohttp"
)


def test_nobody_else_makes_an_http_client() -> None:
    found = {
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in SOURCES.rglob("*.py")
        if path.name != "http_clients.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if MAKES_A_CLIENT.search(line) and not line.lstrip().startswith(("#", "class "))
    }
    assert not found, "open clients with http_clients.open_http_client or llm.open_openai"
