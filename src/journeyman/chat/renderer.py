"""Messages to token ids and back, exactly.

The property everything rests on: the ids of a conversation that grew by a sampled reply start with the ids of the prompt before
it and the ids sampled. Text is therefore never re-tokenised where sampled ids are known: they are spliced in, and only what follows them
is rendered. Only the template writes special tokens: text of users and tools that spells one is encoded as ordinary text.
Not for deciding which stored reply a message is: see `service/capture.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from journeyman.chat.reply import CALL_OPEN, THINK_CLOSE, THINK_OPEN, UNKNOWN_CHARACTER, ChatFormat, ParsedReply, parse_arguments
from journeyman.chat.templates import END_OF_TURN_TOKENS, ChatTemplate, select_template
from journeyman.chat.tokenizer import SpecialTokens, TokenBytes, Tokenizer, vocabulary_fingerprint
from journeyman.errors import InputError, SettingError
from journeyman.types.messages import Message, Tool

Stored = Callable[[Message], tuple[int, ...] | None]
_BEGINS = "begins_with_assistant"
_GREETING = "put a user message in front of the assistant's first one, or leave the greeting out"
_ORDER = "most templates want user and assistant in turn, the user first, after at most one system message"
_OTHER_NAMES = {"developer": "system", "function": "tool"}
_TAIL_TOKENS = 16  # hold a generation prompt's <think>, in any spelling


class Renderer:
    """Renders conversations for one model.

    Args:
        tokenizer: a fast Hugging Face tokenizer; its own chat template is used when it supports tools (see
        `select_template`).
        context_length: tokens the model can hold, prompt and reply together.

    Example:
        >>> renderer = Renderer(tokenizer, 2048)                                          # doctest: +SKIP
        >>> prompt_ids = renderer.render([Message(role="user", content="Hi")], [])        # doctest: +SKIP
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int) -> None:
        self._tokenizer = tokenizer
        self.context_length = context_length
        self._special = SpecialTokens(tokenizer)
        self.template: ChatTemplate = select_template(tokenizer)
        self._allow_bare_call = self.template.is_own and CALL_OPEN not in self.template.text
        self.stop_token_ids: tuple[int, ...] = _stop_token_ids(tokenizer)
        self._start: tuple[int, ...] = _start_token(tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """Of the vocabulary: equal for models that read token ids alike."""
        return vocabulary_fingerprint(self._tokenizer)

    @cached_property
    def token_bytes(self) -> TokenBytes:
        return TokenBytes(self._tokenizer)

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """The token (one) that ends a text where no template writes its own. Raises SettingError when the model has none."""
        if not self.stop_token_ids:
            raise SettingError("this model's tokenizer has no end token: it could not learn to stop", hint="choose another base model")
        return self.stop_token_ids[:1]

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], stored: Stored | None = None) -> tuple[int, ...]:
        """Prompt ids, ending with the generation prompt.

        Args:
            messages: the conversation; `tool` messages and assistant messages with malformed calls or None content
            are fine.
            tools: offered tools, () for none.
            stored: gives the sampled ids of an assistant message, or None; they are put in verbatim.

        Raises SettingError when the model cannot be offered tools or its template refuses the conversation.
        """
        known = {}
        for index, message in enumerate(messages):
            ids = stored(message) if stored is not None and message.role == "assistant" else None
            if ids:
                known[index] = ids
        if known:
            spliced = self._render_spliced(messages, tools, known)
            if spliced is not None:
                return spliced
        return self._encode_rendered(self._text(messages, tools))

    def render_example(
        self, messages: Sequence[Message], tools: Sequence[Tool], num_given: int = 0
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """(ids, trained mask) of a conversation to imitate: assistant text and its end-of-turn token are trained,
        nothing else. `messages[:num_given]` are context: their assistant text is given too.

        Cut into the same pieces as at sampling time, so a drill's prompt is token-identical to a rollout's; what a
        template would take out of earlier replies (their thinking) stays in, as it does there. Every reply ends with a
        stop token, also where the template writes none. What follows the last assistant message is left out.

        Raises SettingError when the template refuses the conversation or writes nothing of a reply; InputError when the first message is
        one to be trained: it answers nothing.
        """
        if num_given == 0 and messages and messages[0].role == "assistant":
            raise InputError("it begins with the assistant", hint=_GREETING, reason=_BEGINS)
        shown = [self._with_thinking(message) for message in messages]
        replies = [index for index, message in enumerate(shown) if message.role == "assistant"]
        pieces = self._cut(shown, tools, replies, is_marked=False) or self._cut(shown, tools, replies, is_marked=True)
        if pieces is None:
            raise SettingError(
                "the model's chat template rewrites earlier messages of this conversation when it goes on",
                hint="give it in parts: an example for each reply",
            )
        ids: list[int] = []
        trained: list[bool] = []
        for index, (given, reply) in zip(replies, pieces, strict=True):
            given_ids, reply_ids = self._piece(given, ids), self._reply_ids(reply, shown[index])
            ids += [*given_ids, *reply_ids]
            trained += [False] * len(given_ids) + [index >= num_given] * len(reply_ids)
        return tuple(ids), tuple(trained)

    def render_text(self, text: str, prompt: str = "") -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """(ids, trained mask) of a raw text to imitate: `prompt` is given, `text` and the model's end token are trained.

        As in `encode`, markers are meant; the model's start token stands in front, given, where its tokenizer would put
        one. A text that spells its start or end token gets no second one. An empty text trains nothing.
        """
        given, taught = self.encode(prompt), self.encode(text)
        if taught and taught[-1] not in self.stop_token_ids:
            taught += self.end_token_ids
        if taught:
            given = self._with_start(given + taught)[: -len(taught)]
        return given + taught, (False,) * len(given) + (True,) * len(taught)

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """Ids of a raw text to be continued: as `encode`, with the start token where `render_text` has it."""
        return self._with_start(self.encode(text))

    def _with_start(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        return ids if ids[:1] == self._start else self._start + ids

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a raw text; markers such as `<|im_end|>` become their tokens, nothing is added."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False)) if text else ()

    def _encode_rendered(self, text: str) -> tuple[int, ...]:
        return tuple(token for piece in self._special.pieces(text) for token in self.encode(piece))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, markers included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def reply_text(self, ids: Sequence[int]) -> str:
        """Text of a reply without the token that ended it; an unfinished character at the end is left out."""
        kept = list(ids)
        while kept and kept[-1] in self.stop_token_ids:
            kept.pop()
        return self.decode(kept).rstrip(UNKNOWN_CHARACTER)

    def parse(self, ids: Sequence[int]) -> ParsedReply:
        """Take a sampled reply apart. Never raises: what cannot be parsed is content, or a call with raw arguments."""
        return self.reply_format().parse(self.reply_text(ids))

    def reply_format(self, prompt_ids: Sequence[int] = (), *, stop: tuple[str, ...] = (), has_tools: bool = True) -> ChatFormat:
        """How the text of a reply to this prompt is to be read."""
        tail = self.decode(prompt_ids[-_TAIL_TOKENS:]).rstrip()
        return ChatFormat(stop, has_tools, is_thinking=tail.endswith(THINK_OPEN), allow_bare_call=self._allow_bare_call)

    def _cut(
        self, messages: Sequence[Message], tools: Sequence[Tool], replies: Sequence[int], *, is_marked: bool
    ) -> list[tuple[str, str]] | None:
        """The rendered text before each reply (since the one before it), and the reply with its end of turn.

        With `is_marked`, marks stand in for earlier replies: for templates that write a reply in another way once it is
        history. None when the pieces cannot be told apart.
        """
        mark = _unused_mark(messages)
        history = list(messages)
        pieces = []
        before = ""  # what stands in the text up to the end of the last reply, or its mark
        for index in replies:
            try:
                prompt = self._text(history[:index], tools) if index else ""  # a greeting: templates write nothing of nothing
                complete = self._text(history[: index + 1], tools, add_generation_prompt=False)
            except SettingError:
                if is_marked:
                    return None
                raise
            place = complete.find(before)
            if place < 0 or (place > 0 and not is_marked):
                return None
            begin = place + len(before)
            start = max(begin, _common_prefix(prompt, complete))
            end = self._end_of_turn(complete, start)
            pieces.append((complete[begin:start], complete[start:end]))
            before = complete[:end]
            if is_marked:
                before = f"{mark}{index}{mark}"
                history[index] = Message(role="assistant", content=before)
        return pieces

    def _reply_ids(self, text: str, message: Message) -> tuple[int, ...]:
        """Ids of a reply to imitate; the last is a stop token."""
        ids = self._encode_rendered(text)
        if (message.content or message.tool_calls) and all(token in self.stop_token_ids for token in ids):
            raise SettingError(
                f"the model's chat template writes nothing of what the assistant {'says' if message.content else 'calls'}",
                hint="a template without tool support leaves tool calls out: choose another base model, or write them as text",
                reason="reply_not_written",
            )
        return ids if ids and ids[-1] in self.stop_token_ids else ids + self.end_token_ids

    def _with_thinking(self, message: Message) -> Message:
        """The message with its thinking as text, for templates that know nothing of it."""
        if not message.reasoning_content or "reasoning_content" in self.template.text:
            return message
        thought = f"{THINK_OPEN}\n{message.reasoning_content}\n{THINK_CLOSE}\n\n{message.content or ''}"
        return message.model_copy(update={"content": thought, "reasoning_content": None})

    def _end_of_turn(self, text: str, start: int) -> int:
        """Where the assistant's turn ends: after its last stop token; what follows (a newline) is glue."""
        ends = [text.rfind(token, start) + len(token) for token in self._stop_texts() if text.rfind(token, start) >= 0]
        return max(ends) if ends else len(text.rstrip())

    def _stop_texts(self) -> list[str]:
        return [str(token) for token in self._tokenizer.convert_ids_to_tokens(list(self.stop_token_ids))]

    def _render_spliced(
        self, messages: Sequence[Message], tools: Sequence[Tool], known: dict[int, tuple[int, ...]]
    ) -> tuple[int, ...] | None:
        """Ids with the known replies spliced in, or None when the template refuses or alters the marks that stand in
        for them."""
        mark = _unused_mark(messages)
        marked = list(messages)
        for index in known:
            marked[index] = Message(role="assistant", content=f"{mark}{index}{mark}")
        ids: list[int] = []
        last = ""  # the mark of the reply spliced in last
        try:
            for index in [*known, len(messages)]:
                # What a reply was sampled from: not always how the template writes its beginning once it is history.
                prompt = self._text(marked[:index], tools)
                start = prompt.find(last) + len(last)
                if start < len(last):
                    return None
                ids.extend(self._piece(prompt[start:], ids))
                ids.extend(known.get(index, ()))
                last = f"{mark}{index}{mark}"
        except SettingError:
            return None
        return tuple(ids)

    def _piece(self, text: str, before: Sequence[int]) -> tuple[int, ...]:
        """Ids of what follows `before`; the end-of-turn marker is left out when the sampler has already drawn it."""
        if before and before[-1] in self.stop_token_ids:
            for marker in self._stop_texts():
                if text.startswith(marker):
                    text = text[len(marker) :]
                    break
        return self._encode_rendered(text)

    def _text(self, messages: Sequence[Message], tools: Sequence[Tool], *, add_generation_prompt: bool = True) -> str:
        if tools and not self.template.supports_tools:
            raise SettingError(
                "this base model's chat template has no tool support and it does not speak ChatML",
                hint="choose a model with tool support, or one whose tokenizer has <|im_start|> and <|im_end|>",
            )
        attempts = [
            _prepare(messages),
            _prepare(messages, plain_arguments=False),
            _prepare(messages, late_system_as_user=True),
        ]
        failure: Exception | None = None
        for attempt in attempts:
            try:
                return self._apply(attempt, tools, add_generation_prompt)
            except (TemplateError, TypeError, ValueError) as error:
                failure = failure or error
        first = next((message.role for message in messages if message.role not in ("system", "developer")), "")
        hint, reason = (_GREETING, _BEGINS) if first == "assistant" else (_ORDER, "template_refuses")
        raise SettingError(f"the model's chat template refuses this conversation: {failure}", hint=hint, reason=reason) from failure

    def _apply(self, messages: list[dict[str, Any]], tools: Sequence[Tool], add_generation_prompt: bool) -> str:
        text = self._tokenizer.apply_chat_template(
            self._special.guard(messages),
            tools=self._special.guard([tool.model_dump() for tool in tools]) or None,
            chat_template=self.template.text,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
        return str(text)


def _prepare(messages: Sequence[Message], *, plain_arguments: bool = True, late_system_as_user: bool = False) -> list[dict[str, Any]]:
    """Messages as templates expect them: no None content, parsed arguments, system messages at the start merged into
    one.

    `plain_arguments`: arguments that do not parse go in as the raw string; else wrapped in an object, for templates
    that need one.
    `late_system_as_user`: system messages after the start become user turns, for templates that refuse them.
    """
    out: list[dict[str, Any]] = []
    for message in messages:
        role = _OTHER_NAMES.get(message.role, message.role)
        if role == "system" and len(out) == 1 and out[0]["role"] == "system":
            out[0]["content"] = "\n\n".join(part for part in (out[0]["content"], message.content) if part)
            continue
        if role == "system" and out and late_system_as_user:
            role = "user"
        entry: dict[str, Any] = {"role": role, "content": message.content or ""}
        if message.reasoning_content:
            entry["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            entry["tool_calls"] = [_prepare_call(call.id, call.function, plain_arguments) for call in message.tool_calls]
        if message.tool_call_id is not None:
            entry["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            entry["name"] = message.name
        out.append(entry)
    return out


def _prepare_call(call_id: str, function: Any, plain_arguments: bool) -> dict[str, Any]:
    raw = function.arguments or "{}"
    arguments: Any = parse_arguments(raw)
    if arguments is None:
        arguments = raw if plain_arguments else {"INVALID_JSON": raw}
    return {"id": call_id, "type": "function", "function": {"name": function.name, "arguments": arguments}}


def _unused_mark(messages: Sequence[Message]) -> str:
    """A text that stands in for a spliced reply and occurs in no message."""
    mark, number = "@@reply@@", 0
    while any(mark in (message.content or "") for message in messages):
        number += 1
        mark = f"@@reply{number}@@"
    return mark


def _common_prefix(left: str, right: str) -> int:
    if right.startswith(left):
        return len(left)
    for index, (first, second) in enumerate(zip(left, right, strict=False)):
        if first != second:
            return index
    return min(len(left), len(right))


def _start_token(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token that the tokenizer itself puts in front of a text (Llama's and Gemma's do); empty when it puts none there."""
    start = tokenizer.bos_token_id
    return (int(start),) if start is not None and list(tokenizer.encode("a"))[:1] == [start] else ()


def _stop_token_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    vocabulary = tokenizer.get_vocab()
    end_of_text = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return tuple(dict.fromkeys([*end_of_text, *(vocabulary[token] for token in END_OF_TURN_TOKENS if token in vocabulary)]))
