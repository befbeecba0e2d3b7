"""Rows as pairs of a better and a worse answer (DPO), in the layouts that data sets come in.

| format | columns |
|---|---|
| `preference` | `chosen`, `rejected` (+ `prompt`, `tools`): texts, or lists of messages |
| `sharegpt_preference` | `conversations`, `chosen`, `rejected` (+ `system`, `tools`) |
| `alpaca_preference` | `instruction`, `chosen`, `rejected` (+ `input`, `system`) |

Without `prompt`, what both sides begin with is the prompt; a prompt that both sides repeat is taken once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from journeyman.data.conversations import (
    Turns,
    refuse_two_questions,
    same_beginning,
    spoken,
    text_without_prompt,
    tools_of,
    without_prompt,
)
from journeyman.data.examples import mixed_kinds, question_of, sft_examples, text_of, tools_with_texts
from journeyman.data.rows import AUTO, Format, Loaded, Row, as_rows, load
from journeyman.errors import InputError
from journeyman.types.messages import Message
from journeyman.types.training import PreferencePair, SftExample, TextExample, TextPair

_Values = Mapping[str, Any]
_Pair = PreferencePair | TextPair


def preference_pairs(
    rows: Iterable[Row | Mapping[str, Any]], format: str = AUTO, columns: Mapping[str, str] | None = None, skip_bad: bool = False
) -> Loaded[PreferencePair | TextPair]:
    """Rows as preference pairs. Arguments as for `sft_examples`; texts are taken as they are, without a chat template.

    Example:
        >>> rows = [{"instruction": "Two and two?", "chosen": "Four.", "rejected": "Five."}]
        >>> loaded = preference_pairs(rows)
        >>> loaded.format, loaded.examples[0].chosen[0].content
        ('alpaca_preference', 'Four.')
    """
    return load(rows, PREFERENCE_FORMATS, format, columns, skip_bad=skip_bad, elsewhere=_examples_hint)


def examples_or_pairs(
    rows: Iterable[Row | Mapping[str, Any]], format: str = AUTO, columns: Mapping[str, str] | None = None, skip_bad: bool = False
) -> Loaded[SftExample | TextExample] | Loaded[PreferencePair | TextPair]:
    """Rows as examples to imitate or as preference pairs, whichever they are: pairs have columns `chosen` and `rejected`."""
    remaining = iter(as_rows(rows))
    head = list(islice(remaining, 1))
    names = {*(columns or {}), *(name for row in head if row.data for name in row.data)}
    is_pairs = {"chosen", "rejected"} <= names if format == AUTO else format in {layout.name for layout in PREFERENCE_FORMATS}
    load_rows = preference_pairs if is_pairs else sft_examples
    return load_rows(chain(head, remaining), format, columns, skip_bad)


def _examples_hint(names: Sequence[str]) -> str | None:
    if "chosen" not in names and "rejected" not in names and {"messages", "conversations", "completion", "output", "text"} & set(names):
        return "these are examples to imitate, not pairs: train them with SFT (sft_examples, model.train_sft)"
    return None


def _read_preference(values: _Values) -> Sequence[_Pair]:
    prompt, chosen, rejected = values.get("prompt"), spoken(values["chosen"]), spoken(values["rejected"])
    prompt = prompt if isinstance(chosen, str) else spoken(prompt)
    if isinstance(chosen, str) and isinstance(rejected, str):
        if values.get("tools"):
            raise tools_with_texts("chosen and rejected")
        return [_text_pair(prompt, chosen, rejected)]
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise mixed_kinds(chosen=chosen, rejected=rejected)
    left, right = Turns(chosen, "chosen").messages, Turns(rejected, "rejected").messages
    length = same_beginning(left, right)
    asked = [message.content or "" for message in left[:length] if message.role == "user"]
    if prompt is None or (isinstance(prompt, str) and _repeats(prompt, asked)):
        # A prompt text beside whole conversations is what they begin with, told once more.
        return [_pair_with_implicit_prompt([], left, right, values)]
    context = [Message(role="user", content=text_of(prompt, "prompt"))] if isinstance(prompt, str) else Turns(prompt, "prompt").messages
    return [_pair_with_prompt(context, left, right, values)]


def _read_sharegpt(values: _Values) -> Sequence[_Pair]:
    context = Turns(values["conversations"], "conversations")
    if values.get("system"):
        context.begin_with_system(text_of(values["system"], "system"))
    return [
        _pair_with_prompt(
            context.messages, Turns(values["chosen"], "chosen").messages, Turns(values["rejected"], "rejected").messages, values
        )
    ]


def _read_alpaca(values: _Values) -> Sequence[_Pair]:
    context = [Message(role="user", content=question_of(values))]
    if values.get("system"):
        context.insert(0, Message(role="system", content=text_of(values["system"], "system")))
    answers = [Message(role="assistant", content=text_of(values[name], name)) for name in ("chosen", "rejected")]
    return [_pair(context, answers[:1], answers[1:], values)]


def _repeats(prompt: str, asked: Sequence[str]) -> bool:
    """Whether a prompt text is one of these user messages, or a transcript with all of them."""
    return bool(asked) and (prompt.strip() in [text.strip() for text in asked] or all(text.strip() in prompt for text in asked))


def _pair_with_prompt(prompt: Sequence[Message], left: Sequence[Message], right: Sequence[Message], values: _Values) -> PreferencePair:
    context, (chosen, rejected) = without_prompt(prompt, {"chosen": left, "rejected": right})
    if all(message.role == "system" for message in context):  # the question is in the answers
        return _pair_with_implicit_prompt(context, chosen, rejected, values)
    refuse_two_questions(context, {"chosen": chosen, "rejected": rejected})
    return _pair(context, chosen, rejected, values)


def _pair_with_implicit_prompt(
    context: Sequence[Message], left: Sequence[Message], right: Sequence[Message], values: _Values
) -> PreferencePair:
    length = same_beginning(left, right)
    whole = [*context, *left[:length]]
    refuse_two_questions(whole, {"chosen": left[length:], "rejected": right[length:]})
    return _pair(whole, left[length:], right[length:], values)


def _pair(context: Sequence[Message], chosen: Sequence[Message], rejected: Sequence[Message], values: _Values) -> PreferencePair:
    if list(chosen) == list(rejected):
        raise InputError("chosen and rejected are the same: there is nothing to prefer", reason="same_answers")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not any(message.role == "assistant" for message in answer):
            raise InputError(f"{name} has no assistant message after what both begin with: nothing to learn", reason="nothing_to_learn")
    if not context:
        raise InputError(
            "there is no prompt: chosen and rejected begin with nothing in common",
            hint="put what the user says in front of both, or into a column prompt",
            reason="begins_with_assistant" if chosen[0].role == rejected[0].role == "assistant" else "no_prompt",
        )
    return PreferencePair(prompt=tuple(context), chosen=tuple(chosen), rejected=tuple(rejected), tools=tools_of(values.get("tools")))


def _text_pair(prompt: object, chosen: str, rejected: str) -> TextPair:
    if chosen == rejected:
        raise InputError("chosen and rejected are the same: there is nothing to prefer", reason="same_answers")
    if prompt is None:
        differs = (number for number, (left, right) in enumerate(zip(chosen, rejected, strict=False)) if left != right)
        prompt = chosen[: next(differs, min(len(chosen), len(rejected)))]
        prompt = prompt.removesuffix(" ")  # a word and the space before it are one token
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        return TextPair(prompt=prompt, chosen=text_of(chosen, "chosen"), rejected=text_of(rejected, "rejected"))
    if not isinstance(prompt, str):
        raise mixed_kinds(prompt=prompt, chosen=chosen, rejected=rejected)
    prompt, (chosen, rejected) = text_without_prompt(prompt, {"chosen": chosen, "rejected": rejected})
    return TextPair(prompt=prompt, chosen=text_of(chosen, "chosen"), rejected=text_of(rejected, "rejected"))


PREFERENCE_FORMATS: tuple[Format[_Pair], ...] = (
    Format("sharegpt_preference", ("conversations", "chosen", "rejected"), ("system", "tools"), _read_sharegpt),
    Format("alpaca_preference", ("instruction", "chosen", "rejected"), ("input", "system"), _read_alpaca),
    Format("preference", ("chosen", "rejected"), ("prompt", "tools"), _read_preference),
)
