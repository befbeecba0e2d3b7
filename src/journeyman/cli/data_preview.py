"""The work behind `journeyman data preview`: every example as tokens, and what can be said of all of them. Not for printing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from journeyman.chat.renderer import Renderer
from journeyman.data import Loaded
from journeyman.errors import InputError
from journeyman.types.training import PreferencePair, SftExample, TextExample, TextPair

_Example = SftExample | TextExample | PreferencePair | TextPair
_NICE = (1, 2, 5)
_NUM_BINS = 8


@dataclass(frozen=True, slots=True)
class Rendered:
    """The tokens of an example, or of one side of a pair (`side`); `is_trained` has the length of `token_ids`."""

    number: int
    side: str
    token_ids: tuple[int, ...]
    is_trained: tuple[bool, ...]

    @property
    def num_trained(self) -> int:
        return sum(self.is_trained)


@dataclass(frozen=True, slots=True)
class Preview:
    """All examples of a source as tokens of one base model. `faults`: why some cannot be rendered, or would be refused."""

    loaded: Loaded[Any]
    renderer: Renderer
    base: str
    rendered: tuple[Rendered, ...]
    faults: tuple[str, ...]

    @property
    def lengths(self) -> list[int]:
        return [len(one.token_ids) for one in self.rendered]

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def num_trained(self) -> int:
        return sum(one.num_trained for one in self.rendered)

    @property
    def median_length(self) -> float:
        return median(self.lengths) if self.rendered else 0.0

    @property
    def template(self) -> str:
        """What conversations are written with, in words."""
        if not any(isinstance(example, SftExample | PreferencePair) for example in self.loaded.examples):
            return "no chat template: texts are taken as they are"
        return "the model's own chat template" if self.renderer.template.is_own else "ChatML, with tools in Hermes' manner"


def render_all(loaded: Loaded[Any], renderer: Renderer, base: str) -> Preview:
    """Every example as tokens; an example that cannot be rendered or does not fit the context is a fault, not an error."""
    rendered: list[Rendered] = []
    faults: list[str] = []
    for number, (example, place) in enumerate(zip(loaded.examples, loaded.places, strict=True), start=1):
        try:
            sides = list(_sides(example, number, renderer))
        except InputError as error:
            faults.append(f"{place}: {error.message}")
            continue
        rendered += sides
        longest = max(len(side.token_ids) for side in sides)
        if longest > renderer.context_length:
            faults.append(f"{place}: {longest} tokens, and the model's context is {renderer.context_length}")
    return Preview(loaded, renderer, base, tuple(rendered), tuple(faults))


def histogram(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first length, last length, how many) of at most nine ranges of the same, round width.

    Example:
        >>> histogram([3, 12, 14, 39])
        [(0, 4, 1), (5, 9, 0), (10, 14, 2), (15, 19, 0), (20, 24, 0), (25, 29, 0), (30, 34, 0), (35, 39, 1)]
    """
    if not lengths:
        return []
    span = max(lengths) - min(lengths) + 1
    width = next(nice * 10**power for power in range(12) for nice in _NICE if nice * 10**power * _NUM_BINS >= span)
    ranges = range(min(lengths) // width * width, max(lengths) + 1, width)
    return [(start, start + width - 1, sum(start <= length < start + width for length in lengths)) for start in ranges]


def _sides(example: _Example, number: int, renderer: Renderer) -> Iterator[Rendered]:
    if isinstance(example, TextExample):
        yield Rendered(number, "", *renderer.render_text(example.text, example.prompt))
    elif isinstance(example, SftExample):
        yield Rendered(number, "", *renderer.render_example(example.messages, example.tools, example.num_given))
    elif isinstance(example, TextPair):
        yield Rendered(number, "chosen", *renderer.render_text(example.chosen, example.prompt))
        yield Rendered(number, "rejected", *renderer.render_text(example.rejected, example.prompt))
    else:
        for side, answer in (("chosen", example.chosen), ("rejected", example.rejected)):
            yield Rendered(number, side, *renderer.render_example((*example.prompt, *answer), example.tools, len(example.prompt)))
