"""A judge that can be made as bad as one likes, served over HTTP as an OpenAI-compatible endpoint. For benchmarks and tests only.

It reads the attempts out of the prompt, knows their true quality from a mark in their text, and answers as its dials say.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ATTEMPT = re.compile(r'<attempt-\w+ id="(\w+)">\n(.*?)\n</attempt-', re.DOTALL)
_MARK = re.compile(r"\bmark (\d+)\b")


@dataclass(frozen=True)
class Dials:
    """How bad the judge is. All zero: it says the truth.

    noise: standard deviation of each score. bias: what the first place gains over the last. drift: standard deviation of a call's
    log-scale, half of it of its offset. shuffles: answers in an order of its own. The others are chances per reply.
    """

    noise: float = 0.0
    bias: float = 0.0
    drift: float = 0.0
    shuffles: bool = False
    missing: float = 0.0
    duplicate: float = 0.0
    out_of_range: float = 0.0
    prose: float = 0.0
    cut_off: float = 0.0
    refusal: float = 0.0
    busy: float = 0.0
    broken: float = 0.0
    hangs: float = 0.0


@dataclass
class Tally:
    """What was served."""

    base_url: str = ""
    requests: int = 0
    faulty: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


@contextmanager
def simulated_judge(dials: Dials, seed: int = 0) -> Iterator[Tally]:
    """Serve until the block ends."""
    tally, generator, lock, closing = Tally(), random.Random(seed), threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                status, body, kind = answer(request, dials, generator)
                tally.requests += 1
                tally.faulty += kind not in ("fine", "prose")
                tally.kinds[kind] = tally.kinds.get(kind, 0) + 1
                usage = body.get("usage", {})
                tally.prompt_tokens += usage.get("prompt_tokens", 0)
                tally.completion_tokens += usage.get("completion_tokens", 0)
            if kind == "hangs":
                closing.wait(30)  # the client gives up long before
                self.close_connection = True
                return
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            if kind == "busy":
                self.send_header("retry-after", "0.01")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            # The client may be gone: it has a time limit.
            try:
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tally.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield tally
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def answer(request: dict[str, Any], dials: Dials, generator: random.Random) -> tuple[int, dict[str, Any], str]:
    """Status, body and the kind of fault of one reply."""
    chances = {
        name: getattr(dials, name)
        for name in ("busy", "broken", "hangs", "refusal", "cut_off", "missing", "duplicate", "out_of_range", "prose")
    }
    kind, draw = "fine", generator.random()
    for name, chance in chances.items():
        if draw < chance:
            kind = name
            break
        draw -= chance
    if kind in ("busy", "broken"):
        status = 429 if kind == "busy" else 500
        return status, {"error": {"message": kind, "type": kind, "param": None, "code": None}}, kind
    prompt = "\n".join(str(message["content"]) for message in request["messages"])
    shown = _ATTEMPT.findall(next(str(m["content"]) for m in request["messages"] if m["role"] == "user"))
    items = [
        {"id": label, "explanation": "as it looks to me", "score": score}
        for (label, _), score in zip(
            shown, judged([int(_MARK.findall(text)[-1]) / 100 for _, text in shown], dials, generator), strict=True
        )
    ]
    if dials.shuffles:
        generator.shuffle(items)
    text = "I cannot judge this." if kind == "refusal" else spoilt(items, kind, generator)
    completion = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": max(1, len(text) // 4), "total_tokens": 0}
    finish = "length" if kind == "cut_off" else "stop"
    choice = {"index": 0, "message": completion, "finish_reason": finish}
    return 200, {"id": "c", "object": "chat.completion", "created": 1, "model": "simulated", "choices": [choice], "usage": usage}, kind


def judged(qualities: list[float], dials: Dials, generator: random.Random) -> list[float]:
    """Scores in [0, 1] of attempts shown in this order."""
    scale = math.exp(dials.drift * generator.gauss(0, 1))
    offset = 0.5 * dials.drift * generator.gauss(0, 1)
    out = []
    for place, quality in enumerate(qualities):
        slot = 0.5 - place / (len(qualities) - 1) if len(qualities) > 1 else 0.0
        value = 0.5 + scale * (quality - 0.5) + offset + dials.bias * slot + dials.noise * generator.gauss(0, 1)
        out.append(round(min(1.0, max(0.0, value)), 3))
    return out


def spoilt(items: list[dict[str, Any]], kind: str, generator: random.Random) -> str:
    """The reply's text with one fault in it."""
    victim = generator.randrange(len(items))
    if kind == "missing":
        items = items[:victim] + items[victim + 1 :]
    elif kind == "duplicate":
        items = [*items, {**items[victim], "score": round(1 - items[victim]["score"], 3)}]
    elif kind == "out_of_range":
        items[victim] = {**items[victim], "score": generator.choice([7.5, -3, 85])}
    text = json.dumps({"scores": items})
    if kind == "cut_off":
        return text[: int(len(text) * generator.uniform(0.2, 0.9))]
    if kind == "prose":
        return f'Thinking of {{"scores": []}} at first, here is my verdict:\n```json\n{text}\n```\nHope this helps!'
    return text
