"""One call to any OpenAI-compatible model: text, or JSON under a schema; retries, timeout, usage."""

from journeyman.llm.client import Llm, LlmSettings, Messages, Meter
from journeyman.llm.openai_client import PROVIDERS, LlmEndpoint, names_provider, omitted_of, open_openai, read_key
from journeyman.llm.replies import JsonMode, JsonReply, TextReply, TokenChoice, Usage

__all__ = [
    "PROVIDERS",
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
    "omitted_of",
    "open_openai",
    "read_key",
]
