"""Where models are, and the `openai.AsyncOpenAI` that we use for models of others: it learns which parameters a model takes, checks every
answer, and keeps to our rules for proxies and redirects. Not for our own server's API (`client/wire.py`), nor for reading an answer
(`answers.py`).

`openai` is imported when a client is opened: that takes a second.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from journeyman.config import environment, environment_key
from journeyman.errors import LlmError, LlmSettingError, SettingError
from journeyman.http_clients import open_http_client, proxy_note, redirect_of, without_credentials
from journeyman.llm.answers import check_stream, give_error_its_status, read_answer, say_words
from journeyman.llm.dialect import Dialect
from journeyman.types.record import Record
from journeyman.types.secrets import checked_header, checked_key

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

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
_COMPLETIONS = "/completions"
_RAW_HEADER = "x-stainless-raw-response"
_NO_STREAMS = ("html", "json", "xml")


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
                hint=f"use one of {', '.join(f'{prefix}/…' for prefix in (*PROVIDERS, 'azure'))}, or give the server's base URL as well",
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


def open_openai(
    base_url: str | None,
    api_key: str | None,
    *,
    kind: type[AsyncOpenAI] | None = None,
    timeout_seconds: float = 600.0,
    max_retries: int = 2,
) -> AsyncOpenAI:
    """A client for the server at `base_url`; whoever opens it closes it.

    Args:
        base_url: up to and including `/v1`; None: OPENAI_BASE_URL, or OpenAI itself.
        api_key: None: OPENAI_API_KEY, which must be set then. For a server that needs none give any text.
        kind: `model_client_class()` when None.

    Raises LlmSettingError: no_url, missing_key, malformed_key, bad_proxy.
    """
    import openai

    url = (base_url or environment("OPENAI_BASE_URL") or PROVIDERS["openai"][0]).strip()
    try:
        key = environment_key("OPENAI_API_KEY") if api_key is None else checked_key(api_key, "the API key")
        if key is None:
            raise SettingError(
                "this model needs an API key", hint="set OPENAI_API_KEY, or give Model(..., api_key=...)", reason="missing_key"
            )
        # The library sends these too, and as they are.
        organization, project = environment_key("OPENAI_ORG_ID"), environment_key("OPENAI_PROJECT_ID")
        for line in (environment("OPENAI_CUSTOM_HEADERS") or "").split("\n"):
            name, colon, value = line.partition(":")
            if colon:
                checked_header(name, value, "OPENAI_CUSTOM_HEADERS")
        http_client = open_http_client(url, openai.DefaultAsyncHttpxClient, timeout=timeout_seconds)
    except SettingError as error:
        raise LlmSettingError(error.message, hint=error.hint, reason=error.reason) from error
    hooks = http_client.event_hooks
    http_client.event_hooks = {**hooks, "response": [*hooks["response"], give_error_its_status]}
    return (kind or model_client_class())(
        base_url=url,
        api_key=key,
        organization=organization,
        project=project,
        timeout=timeout_seconds,
        max_retries=max_retries,
        http_client=http_client,
    )


@functools.cache
def shared_client_class() -> type[AsyncOpenAI]:
    """AsyncOpenAI whose copies (`with_options`) share its connections for good: `async with` over one of them closes nothing.

    `dialects`: what was learnt of each model that it or a copy of it called.
    """
    import openai

    class SharedOpenAI(openai.AsyncOpenAI):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dialects: dict[str, Dialect] = {}
            self.is_borrowing = False

        def copy(self, **options: Any) -> Any:
            copied = super().copy(**options)
            copied.dialects, copied.is_borrowing = self.dialects, options.get("http_client") is None
            return copied

        def with_options(self, **options: Any) -> Any:
            return self.copy(**options)

        async def close(self) -> None:
            if not self.is_borrowing:
                await super().close()

    return SharedOpenAI


@functools.cache
def model_client_class() -> type[AsyncOpenAI]:
    """`shared_client_class()` with its one public `post` overridden."""
    import openai

    parent: Any = shared_client_class()

    class ModelOpenAI(parent):  # type: ignore[misc]  # a class that is made when it is needed
        async def post(self, path: str, **options: Any) -> Any:
            body = options.get("body")
            if not path.endswith(_COMPLETIONS) or not isinstance(body, dict):
                return await super().post(path, **options)
            dialect = self._dialect(body)
            while True:
                sent = dialect.body(body)
                try:
                    return await _checked_answer(super().post, path, {**options, "body": sent}, dialect.where, str(self.base_url))
                except openai.APIStatusError as error:
                    check_redirect(error, dialect.where)
                    say_words(error, self.api_key)
                    if not _is_learnt(dialect, error, sent):
                        raise
                except openai.APIConnectionError as error:
                    check_answered(error, dialect.where)
                    error.args = (f"{error}{proxy_note(str(self.base_url))}",)  # the library says "Connection error." and no more
                    raise

        def as_sent(self, body: dict[str, Any]) -> dict[str, Any]:
            """A call's body without what its model was found not to take."""
            return self._dialect(body).body(body)

        def _dialect(self, body: dict[str, Any]) -> Dialect:
            model = str(body.get("model"))
            url = str(self.base_url)
            where = f"model {model!r} at {without_credentials(url).rstrip('/')}{proxy_note(url)}"
            known: Dialect = self.dialects.setdefault(model, Dialect(where))
            return known

    return ModelOpenAI


def _is_learnt(dialect: Dialect, error: APIStatusError, sent: dict[str, Any]) -> bool:
    """Whether a refused call is worth another try."""
    if error.status_code not in (400, 422):
        return False
    listed = error.body.get("detail") if isinstance(error.body, dict) else None
    if not isinstance(listed, list) or not all(isinstance(fault, dict) and isinstance(fault.get("loc"), list) for fault in listed):
        return dialect.learn(error.message, sent, code=error.code, param=error.param)
    # A list of pydantic's: each fault with its place, and what was given there.
    return any(
        dialect.learn(str(refusal.get("msg")), sent, code=refusal.get("type"), param="/".join(map(str, refusal["loc"])))
        for refusal in listed
    )


async def _checked_answer(post: Callable[..., Awaitable[Any]], path: str, options: dict[str, Any], where: str, base_url: str) -> Any:
    """The answer of one call; whoever asks for the raw response gets it unchecked. Raises LlmError as `answers.read_answer`."""
    request, url = dict(options.get("options") or {}), without_credentials(base_url)
    if any(name.lower() == _RAW_HEADER for name in request.get("headers") or {}):
        return await post(path, **options)
    if options.get("stream"):
        stream = await post(path, **options)
        content_type = stream.response.headers.get("content-type", "")
        if any(word in content_type for word in _NO_STREAMS):
            async with stream:
                check_stream(content_type, await stream.response.aread(), where, url)
        return stream
    finish = request.pop("post_parser", None)  # of the library, for replies that it parses itself
    raw = await post(path, **{**options, "options": request, "cast_to": bytes})
    answer = options["cast_to"].construct(**read_answer(raw, where, url, is_chat=path.endswith("/chat" + _COMPLETIONS)))
    return finish(answer) if callable(finish) else answer


def omitted_of(client: object, model: str) -> tuple[str, ...]:
    """The parameters of sampling that calls of `client` to a model were found to be refused, and are made without."""
    dialect: Dialect | None = getattr(client, "dialects", {}).get(model)
    return () if dialect is None else dialect.omitted


def check_answered(error: Exception, where: str) -> None:
    """Raise the error of an answer that the HTTP library gave up, so that nobody takes it for a server that is out of reach."""
    cause = error.__cause__
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if "TooManyRedirects" in kinds:
        raise LlmSettingError(f"{where} redirects in a circle", hint="check the base URL", reason="redirected") from error
    if "DecodingError" in kinds:
        hint = "the server, or what stands before it, sends another encoding than it names"
        raise LlmError(f"{where} answered with what cannot be decoded: {cause}", hint=hint, reason="bad_encoding") from error


def check_redirect(error: APIStatusError, where: str) -> None:
    """Raise LlmSettingError (redirected) when an error is a redirect that was not followed."""
    target = redirect_of(error.response)
    if target is not None:
        hint = "nothing was sent there: if that server is the right one, give its address as the base URL"
        raise LlmSettingError(f"{where} redirects to {target}", hint=hint, reason="redirected") from error
