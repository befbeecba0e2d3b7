"""Where models are: provider names, base URLs, and the environment variables that hold keys. Makes no call."""

from __future__ import annotations

from collections.abc import Mapping

from journeyman.config import environment, environment_key
from journeyman.errors import LlmSettingError, SettingError
from journeyman.types.record import Record

# Base URL and key variable of each provider, as documented by the providers for their OpenAI-compatible endpoints. None: no key needed.
PROVIDERS: Mapping[str, tuple[str, str | None]] = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com/v1/", "ANTHROPIC_API_KEY"),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai/", "GEMINI_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "ollama": ("http://127.0.0.1:11434/v1", None),
    "vllm": ("http://127.0.0.1:8000/v1", None),
    "journeyman": ("http://127.0.0.1:8100/v1", None),
}

# Azure has one URL per resource: the variable that holds it, and the one that holds the key.
AZURE_ENDPOINT_ENV, AZURE_KEY_ENV = "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"


class LlmEndpoint(Record):
    """Where a model is and which environment variable holds its key (the key itself is never stored).

    Example:
        >>> LlmEndpoint.parse("openai/gpt-5-mini").api_key_env
        'OPENAI_API_KEY'
    """

    model: str
    base_url: str
    api_key_env: str | None = None

    @classmethod
    def parse(cls, name: str, base_url: str | None = None, *, api_key_env: str | None = None) -> LlmEndpoint:
        """Read `provider/model`. With `base_url` the whole name is the model's, and no key is sent unless the URL is a provider's or
        `api_key_env` is given: a key never goes to a server it is not for. A bare name is a model of OpenAI, or of the server that
        OPENAI_BASE_URL names. `azure/DEPLOYMENT` needs AZURE_OPENAI_ENDPOINT. Servers of one's own (`vllm/`, `ollama/`, `journeyman/`)
        may be elsewhere: VLLM_BASE_URL, OLLAMA_BASE_URL, JOURNEYMAN_BASE_URL; VLLM_API_KEY, OLLAMA_API_KEY, JOURNEYMAN_API_KEY are
        sent to them when set. Raises SettingError for an unknown provider."""
        if not name.strip():
            raise SettingError("the model's name is empty", hint=f"give provider/model; providers: {', '.join(PROVIDERS)}, azure")
        if base_url is not None:
            known = [key for url, key in PROVIDERS.values() if base_url.rstrip("/") == url.rstrip("/")]
            return cls(model=name, base_url=base_url, api_key_env=api_key_env or (known[0] if known else None))
        provider, slash, model = name.partition("/")
        if not slash:
            url = environment("OPENAI_BASE_URL")
            key = "OPENAI_API_KEY" if environment("OPENAI_API_KEY") else None
            return cls.parse(name, url, api_key_env=api_key_env or key) if url else cls.parse(f"openai/{name}", api_key_env=api_key_env)
        if provider == "azure":
            return cls(model=model, base_url=_azure_url(name), api_key_env=api_key_env or AZURE_KEY_ENV)
        if provider not in PROVIDERS:
            raise SettingError(
                f"unknown provider {provider!r} in the model name {name!r}",
                hint=f"use one of {', '.join(f'{one}/…' for one in (*PROVIDERS, 'azure'))}, or give the server's base URL as well",
            )
        url, key = PROVIDERS[provider]
        if key is None:
            url = environment(f"{provider.upper()}_BASE_URL") or url
            key = f"{provider.upper()}_API_KEY" if environment(f"{provider.upper()}_API_KEY") else None
        return cls(model=model, base_url=url, api_key_env=api_key_env or key)


def names_provider(name: str) -> bool:
    """Whether a model's name says at which provider it is; other names are of base models on this machine.

    Example:
        >>> names_provider("openai/gpt-5-mini"), names_provider("Qwen/Qwen2.5-0.5B-Instruct")
        (True, False)
    """
    provider, slash, _ = name.partition("/")
    return bool(slash) and provider in (*PROVIDERS, "azure")


def read_key(endpoint: LlmEndpoint) -> str | None:
    """The endpoint's key from the environment; None when it needs none.

    Raises LlmSettingError: missing_key, malformed_key (see `config.checked_key`).
    """
    if endpoint.api_key_env is None:
        return None
    try:
        key = environment_key(endpoint.api_key_env)
    except SettingError as error:
        raise LlmSettingError(error.message, hint=error.hint, reason=error.reason) from error
    if key is None:
        raise LlmSettingError(
            f"no API key for model {endpoint.model!r} at {endpoint.base_url}",
            hint=f"set the environment variable {endpoint.api_key_env}",
            reason="missing_key",
        )
    return key


def _azure_url(name: str) -> str:
    """Azure's OpenAI-compatible `v1` address, which takes the ordinary client and the deployment as the model's name."""
    resource = environment(AZURE_ENDPOINT_ENV)
    if not resource:
        raise SettingError(
            f"no Azure resource for the model {name!r}",
            hint=f"set {AZURE_ENDPOINT_ENV} to https://YOUR-RESOURCE.openai.azure.com and {AZURE_KEY_ENV} to its key",
        )
    root = resource.strip().rstrip("/")
    return f"{root}/" if root.endswith("/openai/v1") else f"{root}/openai/v1/"
