"""One call to any OpenAI-compatible model: text, or JSON under a schema; retries, timeout, usage."""

from journeyman.llm.client import Llm, LlmSettings, Messages, Meter
from journeyman.llm.dialect import Dialect
from journeyman.llm.endpoint import PROVIDERS, LlmEndpoint, names_provider, read_key
from journeyman.llm.replies import JsonMode, JsonReply, TextReply, TokenChoice, Usage

__all__ = [
    "PROVIDERS",
    "Dialect",
    "JsonMode",
    "JsonReply",
    "Llm",
    "LlmEndpoint",
    "LlmSettings",
    "Messages",
    "Meter",
    "TextReply",
    "TokenChoice",
    "Usage",
    "names_provider",
    "read_key",
]
