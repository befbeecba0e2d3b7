"""Rollouts with models that are not served by Journeyman: their chat completions are noted on this side.

A turn noted here has messages and the reply, but no token ids and no log-probabilities: good for judging and comparing, not for
training. Streamed calls, calls for raw responses, and calls through other clients than `run.openai()` are not noted.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from journeyman.errors import LlmError
from journeyman.llm.openai_client import model_client_class, open_openai
from journeyman.types.messages import Message, Tool, marked
from journeyman.types.sampling import FinishReason, SamplingParameters
from journeyman.types.trajectory import Turn

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CHAT_PATH = "/chat/completions"


def foreign_client(base_url: str | None, api_key: str | None) -> AsyncOpenAI:
    """An OpenAI client that can be copied with a recorder attached. Raises LlmSettingError as `open_openai`."""
    return open_openai(base_url, api_key, kind=_recording_class())


class ForeignRecorder:
    """Notes the turns of one rollout."""

    def __init__(self, model: str, max_turns: int) -> None:
        self.started_at = time.time()
        self._model = model
        self._max_turns = max_turns
        self._num_asked = 0  # replies asked for: those of calls in flight, of streams and those noted
        self._turns: list[Turn] = []

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(self._turns)

    def attached(self, client: AsyncOpenAI) -> AsyncOpenAI:
        """A copy of `client` (made by `foreign_client`), sharing its connections, whose calls are noted here."""
        copy: Any = client.with_options()
        copy.recorder = self
        return copy  # type: ignore[no-any-return]

    def begin(self, num_replies: int) -> None:
        """A call for so many replies begins; each counts as a call. Raises LlmError when the rollout has not so many left."""
        left = self._max_turns - self._num_asked
        if num_replies > left:
            asked = "" if left <= 0 else f" but {left}, and this one asks for {num_replies} replies"
            raise LlmError(
                f"this rollout has had all its {self._max_turns} model calls{asked}",
                hint="raise max_turns (each of n replies counts as a call)",
                reason="turn_limit_reached",
            )
        self._num_asked += num_replies

    def give_back(self, num_replies: int) -> None:
        """The call failed: its replies do not count."""
        self._num_asked -= num_replies

    def note(self, body: dict[str, Any], reply: Any, started_at: float) -> None:
        """Note a finished call, a turn for each of its replies. `reply` is a ChatCompletion."""
        for choice in getattr(reply, "choices", ()):  # a caller who asked for the raw response gets no completion
            self._note_choice(body, choice, reply.id or "", started_at)

    def _note_choice(self, body: dict[str, Any], choice: Any, call: str, started_at: float) -> None:
        reason: FinishReason = "length" if choice.finish_reason == "length" else "stop"
        self._turns.append(
            Turn(
                index=len(self._turns),
                adapter=None,
                messages=tuple(Message.model_validate(marked(message)) for message in body.get("messages", ())),
                tools=tuple(Tool.model_validate(tool) for tool in body.get("tools") or () if _is_function(tool)),
                reply=Message.model_validate(marked(choice.message.model_dump(warnings=False))),
                prompt_ids=(),
                sampled_ids=(),
                sampled_logprobs=(),
                finish_reason=reason,
                parameters=_parameters(body),
                started_at=started_at,
                seconds=time.time() - started_at,
                call=call,
            )
        )


def _is_function(tool: object) -> bool:
    """Models of others may be offered more: search, code, tools that take free text."""
    return isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping)


def _parameters(body: dict[str, Any]) -> SamplingParameters:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    sent = {"temperature": body.get("temperature"), "top_p": body.get("top_p"), "max_tokens": limit}
    return SamplingParameters.model_validate({name: value for name, value in sent.items() if value is not None})


@functools.cache
def _recording_class() -> Any:
    """The client for models of others that notes its calls; made when first needed, because openai is imported lazily."""
    parent: Any = model_client_class()

    class RecordingOpenAI(parent):  # type: ignore[misc]  # a class that is made when it is needed
        recorder: ForeignRecorder | None = None

        async def post(self, path: str, **options: Any) -> Any:
            recorder = self.recorder
            if recorder is None or not path.endswith(_CHAT_PATH):
                return await super().post(path, **options)
            num_replies = (options.get("body") or {}).get("n") or 1
            recorder.begin(num_replies)
            started_at = time.time()
            try:
                reply = await super().post(path, **options)
            except BaseException:
                recorder.give_back(num_replies)
                raise
            if not options.get("stream"):
                recorder.note(self.as_sent(options.get("body") or {}), reply, started_at)
            return reply

    return RecordingOpenAI
