"""`python -m journeyman.export.llama_cpp_check FILE.gguf REQUEST.json ANSWER.json`: a GGUF file in llama.cpp itself.

Checks what transformers cannot: that llama.cpp accepts the file, splits text into our tokens, renders conversations by the template in the
file as we do, and how often its own kernels prefer the reference's tokens. Needs `xllamacpp` (llama.cpp with Python bindings, as a wheel);
where it is absent the check is left out, and the export says so. The llama.cpp server in the child process listens on loopback only.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from journeyman.errors import AdapterError
from journeyman.export.child import read_probes, run_check
from journeyman.export.probes import Agreement, Probe, compare, conversations, plain_message
from journeyman.http_clients import open_on_this_machine

if TYPE_CHECKING:
    from journeyman.chat.renderer import Renderer

HOW_TO_GET = "pip install 'journeyman[llamacpp]'"
IN_LLAMA_CPP = "in llama.cpp"
"""The name of this comparison in `Exported.measured`."""
_REQUEST_SECONDS = 300


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
    answer = run_check("journeyman.export.llama_cpp_check", path, probes, conversations=asked)
    if answer["fault"]:
        raise AdapterError(f"llama.cpp reads {path.name} differently: {answer['fault']}", hint="nothing was kept of this export")
    return compare(probes, answer["choices"])


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


def main(arguments: list[str]) -> int:
    path, request, answer = (Path(argument) for argument in arguments)
    probes = read_probes(request)
    llama_cpp = _LlamaCpp(path, max(len(probe.prompt_ids) + len(probe.reply_ids) for probe in probes) + 64)
    asked = json.loads(request.read_text(encoding="utf-8"))["conversations"]
    fault = next((fault for one in asked if (fault := llama_cpp.fault_of(one))), None)
    choices = [
        [llama_cpp.next_token([*probe.prompt_ids, *probe.reply_ids[:length]]) for length in range(len(probe.reply_ids))] for probe in probes
    ]
    answer.write_text(json.dumps({"fault": fault, "choices": choices}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
