"""A scripted OpenAI-compatible server on loopback, for tests of whatever calls a model: real HTTP, no mocks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server says to one request: `content` becomes a chat completion unless `body`, or `raw` bytes, are given."""

    content: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    finish_reason: str = "stop"
    raw: bytes | None = None

    @classmethod
    def error(cls, status: int, message: str, code: str | None = None, **headers: str) -> Answer:
        return cls(status=status, headers=headers, body={"error": {"message": message, "type": "e", "param": None, "code": code}})


Script = Callable[[dict[str, Any]], Answer]


@dataclass
class ScriptedServer:
    """`requests` are the bodies received, `keys` the Authorization headers."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


class _ManyCallers(ThreadingHTTPServer):
    # The library's queue of 5 drops connections of a burst, and each is tried again after a second.
    request_queue_size = 128


@contextmanager
def serve(script: Script) -> Iterator[ScriptedServer]:
    """Serve until the block ends; `script` maps a request's body to an answer."""
    record = ScriptedServer("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, request: dict[str, Any]) -> None:
            record.requests.append(request)
            record.keys.append(self.headers.get("authorization", ""))
            answer = script(request)
            is_streamed = bool(request.get("stream")) and answer.body is None and answer.raw is None
            body = answer.body or _completion(answer, request)
            data = answer.raw if answer.raw is not None else _events(answer, body) if is_streamed else json.dumps(body).encode()
            self.send_response(answer.status)
            kind = "text/event-stream" if is_streamed else "application/json"
            for name, value in {"content-type": kind, **answer.headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = _ManyCallers(("127.0.0.1", 0), Handler)
    record.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def scripted(*answers: Answer | str) -> Script:
    """Answers in order, the last one for ever."""
    left = list(answers)

    def next_answer(_: dict[str, Any]) -> Answer:
        answer = left.pop(0) if len(left) > 1 else left[0]
        return Answer(answer) if isinstance(answer, str) else answer

    return next_answer


def _events(answer: Answer, completion: dict[str, Any]) -> bytes:
    """The completion as server-sent events, a word at a time."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": completion["model"]}
    words = (answer.content or "").split(" ")
    pieces = [word + (" " if number + 1 < len(words) else "") for number, word in enumerate(words)]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
    choices.append({"index": 0, "delta": {}, "finish_reason": answer.finish_reason})
    chunks = [head | {"choices": [choice]} for choice in choices] + [head | {"choices": [], "usage": completion["usage"]}]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def _completion(answer: Answer, request: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.content}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": request.get("model", "m"),
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
