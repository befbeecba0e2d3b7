"""Expected scores: the mean over what a judge might have written, where its endpoint returns the probabilities of tokens.

Beats the written score in most published comparisons (2503.03064): a judge torn between 0.7 and 0.8 says so. Plain functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from journeyman.llm import TokenChoice

_SCORE = re.compile(r'"score"\s*:\s*(?P<number>[01](?:\.\d+)?)')
_NUMBER_LIKE = re.compile(r"\d+(?:\.\d*)?|\.\d*")


def expected_scores(text: str, tokens: Sequence[TokenChoice], labels: Iterable[str]) -> dict[str, float]:
    """Expected score by label, for those whose score stands in `text` once and whose tokens are known; the others are left out."""
    if "".join(token.text for token in tokens) != text:
        return {}
    found = {}
    for label in labels:
        places = [match.end() for match in re.finditer(rf'"id"\s*:\s*"{re.escape(label)}"', text)]
        match = _SCORE.search(text, places[0]) if len(places) == 1 else None
        if match is not None and '"id"' not in text[places[0] : match.start()]:
            found[label] = _expected(match.start("number"), match.end("number"), tokens)
    return found


def _expected(start: int, end: int, tokens: Sequence[TokenChoice]) -> float:
    """The mean over alternatives at each token of the number, the earlier tokens as written."""
    written, mass, mean, position = "", 1.0, 0.0, 0
    for token in tokens:
        begin, position = position, position + len(token.text)
        if position <= start or begin >= end:
            continue
        here = token.text[max(0, start - begin) : max(0, end - begin)]
        if here != token.text.strip():
            break  # the token holds more than the number: what else it might have been cannot be read
        others = [(alternative.strip(), chance) for alternative, chance in token.alternatives if alternative.strip() != here]
        readable = [(value, chance) for other, chance in others if (value := _value(written + other)) is not None]
        known = sum(chance for alternative, chance in token.alternatives if alternative.strip() == here) or 1.0
        total = known + sum(chance for _, chance in readable)
        mean += mass * sum(value * chance for value, chance in readable) / total
        mass *= known / total
        written += here
    final = _value(written) if written else None
    return min(1.0, max(0.0, mean + mass * (final or 0.0)))


def _value(text: str) -> float | None:
    """What a number that begins like this is worth, within [0, 1]; None when it is none."""
    if not _NUMBER_LIKE.fullmatch(text) or text == ".":
        return None
    value = float(text + "0" if text.endswith(".") else text)
    return value if value <= 1.0 else None
