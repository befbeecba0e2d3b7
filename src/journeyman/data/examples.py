"""Rows as examples to imitate (SFT), in the layouts that data sets come in. Not for pairs of a better and a worse answer: `preferences.py`.

| format | columns |
|---|---|
| `messages` | `messages` (+ `tools`) |
| `sharegpt` | `conversations` (+ `system`, `tools`) |
| `prompt_completion` | `prompt`, `completion` (+ `tools`): two texts, or two lists of messages |
| `alpaca` | `instruction`, `output` (+ `input`, `system`, `history`) |
| `text` | `text` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from journeyman.data.conversations import Turns, kind_of, parsed, spoken, text_without_prompt, tools_of, without_prompt
from journeyman.data.rows import AUTO, Format, Loaded, Row, load
from journeyman.errors import InputError
from journeyman.types.training import SftExample, TextExample

_Values = Mapping[str, Any]
_Example = SftExample | TextExample


def sft_examples(
    rows: Iterable[Row | Mapping[str, Any]], format: str = AUTO, columns: Mapping[str, str] | None = None, skip_bad: bool = False
) -> Loaded[SftExample | TextExample]:
    """Rows as examples to imitate.

    Conversations (`messages`, `sharegpt`, `alpaca`) are rendered with the model's chat template, and what the assistant says is trained.
    Texts (`text`, and `prompt_completion` with texts) are taken as they are, without a template. To train question and answer
    columns as a chat, read them as `alpaca`: `columns={"instruction": "question", "output": "answer"}`.

    Args:
        rows: of `read_rows`, or plain mappings.
        format: a format's name, or "auto": told by the columns.
        columns: our name of a column -> its name in the rows.
        skip_bad: leave faulty rows out and count them; otherwise the first of them are an InputError.

    Example:
        >>> loaded = sft_examples([{"instruction": "Name a colour.", "output": "Red."}])
        >>> loaded.format, [message.role for message in loaded.examples[0].messages]
        ('alpaca', ['user', 'assistant'])
    """
    return load(rows, SFT_FORMATS, format, columns, skip_bad=skip_bad, elsewhere=_preferences_hint)


def text_of(value: object, name: str) -> str:
    """A column that must be a text with something in it."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{name}: a text is needed, this is {kind_of(value)}", reason="no_text")
    return value


def tools_with_texts(what: str) -> InputError:
    """The error of tools beside texts, which have no chat template."""
    text = f"tools are offered in a chat, and {what} are texts: give them as lists of messages"
    return InputError(text, reason="tools_with_texts")


def mixed_kinds(**values: object) -> InputError:
    """The error of columns of which some are texts and others are not."""
    kinds = " and ".join(f"{name} is {kind_of(value)}" for name, value in values.items())
    return InputError(f"{kinds}: all must be texts, or lists of messages", reason="mixed_kinds")


def _preferences_hint(names: Sequence[str]) -> str | None:
    if "chosen" in names and "rejected" in names:
        return "chosen and rejected are preference pairs: train them with DPO (preference_pairs, model.train_dpo)"
    return None


def _read_messages(values: _Values) -> Sequence[_Example]:
    return Turns(values["messages"]).examples(tools_of(values.get("tools")))


def _read_sharegpt(values: _Values) -> Sequence[_Example]:
    turns = Turns(values["conversations"], "conversations")
    if values.get("system"):
        turns.begin_with_system(text_of(values["system"], "system"))
    return turns.examples(tools_of(values.get("tools")))


def _read_prompt_completion(values: _Values) -> Sequence[_Example]:
    prompt, completion = values["prompt"], spoken(values["completion"])
    prompt = prompt if isinstance(completion, str) else spoken(prompt)
    if isinstance(prompt, str) and isinstance(completion, str):
        if values.get("tools"):
            raise tools_with_texts("prompt and completion")
        prompt, (completion,) = text_without_prompt(prompt, {"completion": completion})
        return [TextExample(text=text_of(completion, "completion"), prompt=prompt)]
    if isinstance(prompt, str) or isinstance(completion, str):
        raise mixed_kinds(prompt=prompt, completion=completion)
    turns, answer = Turns(prompt, "prompt"), Turns(completion, "completion")
    context, (left,) = without_prompt(turns.messages, {"completion": answer.messages})
    num_repeated = len(answer.messages) - len(left)
    if len(context) > len(turns.messages):  # the completion alone has the system message
        turns.begin_with_system("\n\n".join(message.content or "" for message in context if message.role == "system"))
    num_given = len(turns.messages)
    turns.add(completion, "completion", num_skipped=num_repeated)
    return turns.examples(tools_of(values.get("tools")), num_given)


def _read_alpaca(values: _Values) -> Sequence[_Example]:
    turns: list[dict[str, str]] = []
    if values.get("system"):
        turns.append({"role": "system", "content": text_of(values["system"], "system")})
    history = parsed(values.get("history"), "history") or ()
    if not isinstance(history, Sequence) or isinstance(history, str):
        raise InputError(f"history: a list is needed, this is {kind_of(history)}", reason="no_history")
    for number, pair in enumerate(history, start=1):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise InputError(
                f"history, entry {number}: a list of two texts (question, answer) is needed, this is {pair!r}", reason="no_history"
            )
        turns += _exchange(str(pair[0]), text_of(pair[1], f"history, entry {number}"))
    turns += _exchange(question_of(values), text_of(values["output"], "output"))
    return Turns(turns, "the conversation").examples(())


def question_of(values: _Values) -> str:
    """Alpaca's instruction, with its input on the next line."""
    more = values.get("input")
    return "\n".join((text_of(values["instruction"], "instruction"), *([text_of(more, "input")] if more else ())))


def _exchange(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _read_text(values: _Values) -> Sequence[_Example]:
    return [TextExample(text=text_of(values["text"], "text"))]


SFT_FORMATS: tuple[Format[_Example], ...] = (
    Format("messages", ("messages",), ("tools",), _read_messages),
    Format("sharegpt", ("conversations",), ("system", "tools"), _read_sharegpt),
    Format("prompt_completion", ("prompt", "completion"), ("tools",), _read_prompt_completion),
    Format("alpaca", ("instruction", "output"), ("input", "system", "history"), _read_alpaca),
    Format("text", ("text",), (), _read_text),
)
