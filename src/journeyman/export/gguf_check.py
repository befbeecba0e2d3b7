"""What a GGUF file prefers at each token of the probes: `python -m journeyman.export.gguf_check READER FILE.gguf REQUEST.json ANSWER.json`.

Run as a child process, so that the memory is given back and what libraries print is ours to show or not. Two readers. `transformers` gives
each weight the value that it is stored as and computes in float32: a difference to the reference is the rounding of the weights.
`llama_cpp` is llama.cpp itself: does it accept the file, split text into our tokens, render conversations by the template in the file as
we do, and how often do its own kernels prefer the reference's tokens? It needs `xllamacpp` (llama.cpp with Python bindings, as a wheel);
where that is absent the check is left out, and the export says so. Its server listens on loopback only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from journeyman.errors import AdapterError, WaitTimeoutError
from journeyman.export.probes import Agreement, Probe, compare, conversations, plain_message
from journeyman.http_clients import open_on_this_machine

if TYPE_CHECKING:
    from journeyman.chat.renderer import Renderer

HOW_TO_GET = "pip install 'journeyman[llamacpp]'"
IN_LLAMA_CPP = "in llama.cpp"
"""The name of this comparison in `Exported.measured`."""
_SECONDS, _REQUEST_SECONDS = 1800, 300

Reader = Literal["transformers", "llama_cpp"]


def run_check(reader: Reader, path: Path, probes: Sequence[Probe], **more: Any) -> Any:
    """Let `reader` answer to a file, the probes and what else is asked. `choices` in its answer has a list of tokens per probe.

    Raises AdapterError when the child fails, WaitTimeoutError when it takes too long.
    """
    request, answer = path.with_suffix(".request.json"), path.with_suffix(".answer.json")
    request.write_text(json.dumps({"probes": [asdict(probe) for probe in probes], **more}), encoding="utf-8")
    try:
        result = subprocess.run(
            [sys.executable, "-m", "journeyman.export.gguf_check", reader, str(path), str(request), str(answer)],
            capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=_SECONDS,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise AdapterError(
                f"{path.name} was written, but cannot be read again: {last[:300]}",
                hint="nothing was kept of this export",
                reason="unreadable_export",
            )
        return json.loads(answer.read_text(encoding="utf-8"))
    except subprocess.TimeoutExpired as error:
        raise WaitTimeoutError(f"checking {path.name} took longer than {_SECONDS} s", hint="is the machine busy? Try again") from error
    finally:
        request.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


def check_gguf(path: Path, probes: Sequence[Probe]) -> Agreement:
    """Load the file in a child process and compare. Raises AdapterError when it cannot be read."""
    return compare(probes, run_check("transformers", path, probes)["choices"])


def is_available() -> bool:
    """Whether llama.cpp can be run from here."""
    return importlib.util.find_spec("xllamacpp") is not None


def check_in_llama_cpp(renderer: Renderer, path: Path, probes: Sequence[Probe]) -> Agreement:
    """Run llama.cpp on the file in a child process and compare.

    Raises AdapterError when it refuses the file, or tokenises or renders a conversation differently.
    """
    asked = [
        {
            "messages": [plain_message(message) for message in messages],
            "tools": [tool.model_dump() for tool in tools],
            "text": renderer.decode(ids),
            "ids": ids,
        }
        for messages, tools, ids in conversations(renderer)
    ]
    answer = run_check("llama_cpp", path, probes, conversations=asked)
    if answer["fault"]:
        raise AdapterError(
            f"llama.cpp reads {path.name} differently: {answer['fault']}", hint="nothing was kept of this export", reason="read_differently"
        )
    return compare(probes, answer["choices"])


# In the child process --------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    reader, path, request, answer = arguments[0], *map(Path, arguments[1:])
    asked = json.loads(request.read_text(encoding="utf-8"))
    probes = [Probe(tuple(one["prompt_ids"]), tuple(one["reply_ids"]), tuple(one["gaps"])) for one in asked["probes"]]
    found = read_by_llama_cpp(path, probes, asked["conversations"]) if reader == "llama_cpp" else read_by_transformers(path, probes)
    answer.write_text(json.dumps(found), encoding="utf-8")
    return 0


def read_by_transformers(path: Path, probes: Sequence[Probe]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from journeyman.export.check import preferred

    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    return {"choices": [preferred(model, probe) for probe in probes]}


class _LlamaCpp:
    """One llama.cpp server in this process."""

    def __init__(self, path: Path, num_tokens: int) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx = num_tokens
        settings.n_parallel = 1
        settings.cpuparams.n_threads = 1
        settings.cpuparams_batch.n_threads = 1
        settings.warmup = False
        settings.use_jinja = True
        self._server = xllamacpp.Server(settings)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with open_on_this_machine(request, _REQUEST_SECONDS) as reply:
            return json.load(reply)

    def next_token(self, ids: list[int]) -> int:
        body = {"prompt": ids, "n_predict": 1, "temperature": 0, "return_tokens": True, "cache_prompt": True}
        return int(self.post("/completion", body)["tokens"][0])

    def fault_of(self, conversation: dict[str, Any]) -> str | None:
        """What llama.cpp does differently with a conversation, in words."""
        body = {"messages": conversation["messages"]} | ({"tools": conversation["tools"]} if conversation["tools"] else {})
        text = self.post("/apply-template", body)["prompt"]
        if text != conversation["text"]:
            return f"it renders {text!r} instead of {conversation['text']!r}"
        ids = self.post("/tokenize", {"content": text, "parse_special": True})["tokens"]
        return None if ids == conversation["ids"] else f"{text!r} has the tokens {ids} instead of {conversation['ids']}"


def read_by_llama_cpp(path: Path, probes: Sequence[Probe], asked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    llama_cpp = _LlamaCpp(path, max(len(probe.prompt_ids) + len(probe.reply_ids) for probe in probes) + 64)
    choices = [
        [llama_cpp.next_token([*probe.prompt_ids, *probe.reply_ids[:length]]) for length in range(len(probe.reply_ids))] for probe in probes
    ]
    return {"fault": next(filter(None, map(llama_cpp.fault_of, asked)), None), "choices": choices}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
