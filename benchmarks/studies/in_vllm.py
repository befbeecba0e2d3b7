"""An export in a real vLLM: started by the line that the export prints, asked by HTTP, compared with the version it was made of.

vLLM needs libraries of other releases than Journeyman does, so it lives in an environment of its own, and its Python is named:
`python -m benchmarks.study export --vllm /path/to/vllm/bin/python`. Not for GGUF files: see `journeyman.export.gguf_check`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from journeyman.errors import AdapterError, SettingError, WaitTimeoutError
from journeyman.export.probes import Agreement, Probe, compare, conversations
from journeyman.http_clients import open_on_this_machine

if TYPE_CHECKING:
    from journeyman.chat.renderer import Renderer

IN_VLLM: Final = "in vLLM"
"""The name of this comparison in `ExportRow.measured`."""
HOW_TO_GET: Final = "make an environment with vLLM in it and name its Python: --vllm /path/to/vllm/bin/python"
_START_SECONDS: Final = 600.0
_END_SECONDS: Final = 60.0
_REQUEST_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.5
# Memory for its cache, in GiB; nothing is fetched or reported.
_ENVIRONMENT: Final = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
_MODULE: Final = "vllm.entrypoints.openai.api_server"


def require_vllm(python: Path) -> None:
    """Raises SettingError when this Python has no vLLM."""
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        code = subprocess.run([str(python), "-c", found], check=False, capture_output=True, timeout=_START_SECONDS).returncode
    except OSError as error:
        raise SettingError(f"{python} cannot be run: {error.strerror}", hint=HOW_TO_GET) from error
    if code != 0:
        raise SettingError(f"{python} has no vLLM", hint=HOW_TO_GET)


def compare_in_vllm(python: Path, line: str, renderer: Renderer, probes: Sequence[Probe], *, dtype: str, log: Path) -> Agreement:
    """What vLLM prefers at each token of the probes, against the reference.

    Args:
        line: `vllm serve ...`, as the export printed it.
        dtype: what vLLM computes in; by itself it rounds float32 weights.
        log: what the server says.

    Raises:
        AdapterError: it does not start, or renders a conversation differently.
        WaitTimeoutError: it is not ready, or does not answer, in time.
    """
    words = shlex.split(line)
    if words[:2] != ["vllm", "serve"]:
        raise SettingError(f"not a line that starts vLLM: {line!r}", hint="give what the export printed")
    served = _option(words, "--lora-modules").partition("=")[0] or _option(words, "--served-model-name")
    with _server(python, [words[2], *words[3:], "--dtype", dtype], log) as url:
        _check_rendering(url, served, renderer)
        return compare(probes, [_preferred(url, served, probe) for probe in probes])


def _option(words: Sequence[str], name: str) -> str:
    return words[words.index(name) + 1] if name in words else ""


@contextmanager
def _server(python: Path, words: Sequence[str], log: Path) -> Iterator[str]:
    """The address of a vLLM of these arguments, the model first; ended with all its processes."""
    port = _free_port()
    command = [str(python), "-m", _MODULE, "--model", *words, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **_ENVIRONMENT}, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, url, log)
            yield url
        finally:
            _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _is_healthy(url):
        try:
            code = process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"vLLM was not ready after {_START_SECONDS:g} s: {_last(log)}", hint=f"its log: {log}") from None
        else:
            raise AdapterError(f"vLLM ended with code {code} before it was ready: {_last(log)}", hint=f"its log: {log}")


def _is_healthy(url: str) -> bool:
    try:
        with open_on_this_machine(urllib.request.Request(f"{url}/health"), _POLL_SECONDS * 10) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Its engine is a process of its own, of the same group: asked to end, then ended."""
    try:
        process.terminate()
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(_END_SECONDS)


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with open_on_this_machine(request, _REQUEST_SECONDS) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise AdapterError(f"vLLM refused {url}: {error.code} {error.read().decode(errors='replace')[:300]}") from error
    except TimeoutError as error:
        raise WaitTimeoutError(f"vLLM did not answer {url} in {_REQUEST_SECONDS:g} s", hint="is the machine busy? Try again") from error


def _check_rendering(url: str, served: str, renderer: Renderer) -> None:
    """Raises AdapterError unless vLLM gives conversations the tokens that the service gives them."""
    for messages, tools, expected in conversations(renderer):
        body: dict[str, Any] = {"model": served, "messages": [message.wire() for message in messages]}
        if tools:
            body["tools"] = [tool.model_dump() for tool in tools]
        found = tuple(_post(f"{url}/tokenize", body)["tokens"])
        if found != expected:
            raise AdapterError(f"vLLM renders {renderer.decode(expected)!r} as {renderer.decode(found)!r}")


def _preferred(url: str, served: str, probe: Probe) -> list[int]:
    """The likeliest token at each place of a probe's answer, given the answer so far: one request."""
    body = {"model": served, "prompt": [*probe.prompt_ids, *probe.reply_ids], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}
    places = _post(f"{url}/v1/completions", body)["choices"][0]["prompt_logprobs"][len(probe.prompt_ids) :]
    return [next(int(token) for token, told in place.items() if told["rank"] == 1) for place in places]
