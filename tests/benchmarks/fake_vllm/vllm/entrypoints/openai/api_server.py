"""What of vLLM's server the study of exports uses, computed by transformers: for tests, under the module name that vLLM has.

With FAKE_VLLM=broken it says so and ends; with FAKE_VLLM=forgetful it renders no system message; with FAKE_VLLM=confused it prefers
the least likely tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Model:
    def __init__(self, given: argparse.Namespace) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model: Any = AutoModelForCausalLM.from_pretrained(given.model, dtype=getattr(torch, given.dtype))
        self.name, folder = given.served_model_name, given.model
        if given.enable_lora:
            self.name, _, folder = given.lora_modules.partition("=")
            model = PeftModel.from_pretrained(model, folder)
        self.model = model.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = [message for message in body["messages"] if os.environ.get("FAKE_VLLM") != "forgetful" or message["role"] != "system"]
        for call in (call for message in messages for call in message.get("tool_calls", ())):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        text = self.tokenizer.apply_chat_template(messages, tools=body.get("tools"), add_generation_prompt=True, tokenize=False)
        return {"tokens": self.tokenizer.encode(text, add_special_tokens=False)}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        ids = body["prompt"]
        with torch.inference_mode():
            logits = self.model(input_ids=torch.tensor([ids])).logits[0].float()
        places: list[Any] = [None]
        for place, token in zip(logits[:-1], ids[1:], strict=True):
            best = int(place.argmin() if os.environ.get("FAKE_VLLM") == "confused" else place.argmax())
            rank = int((place > place[token]).sum()) + 1
            places.append({str(best): {"rank": 1}} if rank > 1 or best != token else {str(token): {"rank": 1}})
        return {"choices": [{"prompt_logprobs": places}]}


class Handler(BaseHTTPRequestHandler):
    model: Model

    def do_GET(self) -> None:
        self._send({})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == self.model.name
        self._send(self.model.tokenize(body) if self.path == "/tokenize" else self.model.complete(body))

    def _send(self, data: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(data).encode())


def main() -> None:
    if os.environ.get("FAKE_VLLM") == "broken":
        sys.exit("no such device")
    parser = argparse.ArgumentParser()
    for name in (
        "model",
        "served-model-name",
        "lora-modules",
        "max-lora-rank",
        "chat-template",
        "tool-call-parser",
        "dtype",
        "host",
        "port",
    ):
        parser.add_argument(f"--{name}")
    for name in ("enable-lora", "enable-auto-tool-choice"):
        parser.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    Handler.model = Model(given)
    HTTPServer((given.host, int(given.port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
