"""The kinds of expected values: how each is read from a text, and when a stated one is the expected one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from journeyman.rewards.claims import (
    OPPOSITES,
    DurationClaim,
    WordClaim,
    choice_class,
    choices,
    clock_lengths,
    durations,
    ordinals_as_numbers,
    truths,
)
from journeyman.rewards.moments import MomentClaim, blank, falls_on_another, moments
from journeyman.rewards.numerals import Claim, NumberClaim, is_open_share, is_same_number, lone_counts, numbers
from journeyman.rewards.units import asked_things

# "On which floor": "the 2nd", "the second".
_ASKS_PLACE = re.compile(
    r"\b(?:which|what)\s+(?:floor|storey|place|position|rank|row|line|page|level|grade|week|quarter|round|season|episode|chapter|edition)\b",
    re.I,
)
# "3 people": the number of a noun is no length.
_OF_A_THING = re.compile(
    r"\s+(?!(?:and|but|for|from|not|or|per|than|that|the|then|to|when|which|while|with|ahead|behind|full|whole|more|less|total)\b)[a-z]{3,}"
)
_NO_DAY = (None, 0, 0)

Value = str | float | int | bool


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of one kind are read from a text and compared. `name` groups expected values that share their claims.

    `match(expected, stated)`: True, False, or None where the notation leaves it open.
    """

    name: str
    read: Callable[[str, str], Sequence[Claim]]
    match: Callable[[Claim, Claim], bool | None]
    ignores_question: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """An expected value, as a claim of its kind; None for text."""

    value: Value
    kind: Kind | None
    claim: Claim | None


def expect(value: Value) -> Expected:
    """Find out what kind of value is expected."""
    if isinstance(value, bool):
        return Expected(value, _TRUTH, WordClaim(0, 0, str(value).lower()))
    if isinstance(value, int | float):
        return Expected(value, _NUMBER, NumberClaim(0, 0, float(value)))
    text = value.strip()
    if text.casefold() in ("true", "false", "yes", "no"):
        return Expected(value, _TRUTH, WordClaim(0, 0, "true" if text.casefold() in ("true", "yes") else "false"))
    words = choice_class(text)
    if words is not None:
        kind = Kind(words[0], partial(_read_choices, words), _is_same_word, words in OPPOSITES)
        return Expected(value, kind, WordClaim(0, 0, text.casefold()))
    found = _expect_measure(text)
    if found is None and (labelled := re.fullmatch(r"[A-Za-z][\w ]{0,30}[:=]\s*(\S[^\n]*)", text)) is not None:
        # "Result: 391": what counts is the value behind the label, if it is of a kind that can be recognised alone.
        inner = expect(labelled[1])
        found = inner if inner.kind is not None else None
    return found or Expected(value, None, None)


def _expect_measure(text: str) -> Expected | None:
    """A moment, a duration or a number that makes up the whole of `text`."""
    for kind in (_CLOCK, _DURATION, _NUMBER):
        claims = moments(text) if kind is _CLOCK else durations(text) if kind is _DURATION else numbers(text)
        if not claims or claims[0].start != 0 or claims[0].end != len(text):
            continue
        claim = claims[0]
        if isinstance(claim, MomentClaim) and (claim.clock is None or _is_bare_midnight(claim, text)):
            return Expected(text, _DATE, claim)
        if isinstance(claim, NumberClaim) and not re.search(r"\d", text):
            return None  # a word such as "none" is a text
        return Expected(text, kind, claim)
    return None


def _is_bare_midnight(claim: MomentClaim, text: str) -> bool:
    """A date that a library wrote as a date-time ("2026-11-22T00:00:00", no offset)."""
    return claim.date is not None and claim.clock == (0, 0, 0) and text.endswith("00:00:00")


def _match_number(wanted: Claim, stated: Claim) -> bool | None:
    assert isinstance(wanted, NumberClaim)
    assert isinstance(stated, NumberClaim)
    if is_open_share(wanted, stated):
        return None
    if is_same_number(wanted, stated):
        return True
    if stated.other is not None and is_same_number(wanted, NumberClaim(0, 0, stated.other, unit=stated.unit)):
        return None
    return False


def _is_same_word(left: Claim, right: Claim) -> bool:
    return isinstance(left, WordClaim) and isinstance(right, WordClaim) and left.value == right.value


def _match_date(wanted: Claim, stated: Claim) -> bool | None:
    if not (isinstance(wanted, MomentClaim) and isinstance(stated, MomentClaim)) or wanted.date is None or stated.date is None:
        return False
    if stated.other_date is not None:
        either = [_is_same_day(wanted.date, date) for date in (stated.date, stated.other_date)]
        return None if any(either) else False
    return _is_same_day(wanted.date, stated.date)


def _is_same_day(left: tuple[int | None, int, int], right: tuple[int | None, int, int]) -> bool:
    return left[1:] == right[1:] and len({left[0], right[0]} - {None}) <= 1


def _match_clock(wanted: Claim, stated: Claim) -> bool | None:
    if not (isinstance(wanted, MomentClaim) and isinstance(stated, MomentClaim)) or wanted.clock is None or stated.clock is None:
        return False
    shift = wanted.zone - stated.zone if wanted.zone is not None and stated.zone is not None else 0
    if shift == 0 and wanted.date is not None and stated.date is not None and _match_date(wanted, stated) is False:
        return False
    if len({wanted.clock[2], stated.clock[2]} - {None}) > 1:
        return False
    at = (wanted.clock[0] * 60 + wanted.clock[1] - shift) % 1440
    said = stated.clock[0] * 60 + stated.clock[1]
    if at == said:
        return None if stated.is_spoken else True
    return None if stated.is_half_open and at == (said + 720) % 1440 else False


def _match_length(wanted: Claim, stated: Claim) -> bool | None:
    """`wanted` may be the expected length; a bare number counts in its unit."""
    if isinstance(wanted, NumberClaim) and isinstance(stated, NumberClaim):
        return _match_number(wanted, stated)
    if isinstance(wanted, NumberClaim):
        wanted, stated = stated, wanted
    assert isinstance(wanted, DurationClaim)
    if isinstance(stated, NumberClaim):
        return wanted.amount is not None and _is_same_size(wanted.amount, stated.value, stated.is_signed, 1e-9)
    assert isinstance(stated, DurationClaim)
    return _is_same_size(wanted.seconds, stated.seconds, wanted.is_signed and stated.is_signed, 0.5)


def _is_same_size(left: float, right: float, is_signed: bool, tolerance: float) -> bool:
    if is_signed:
        return abs(left - right) <= tolerance
    return abs(abs(left) - abs(right)) <= tolerance


def _read_numbers(text: str, question: str) -> Sequence[Claim]:
    if _ASKS_PLACE.search(question):
        text = ordinals_as_numbers(text)
    text = blank(text, moments(text))
    return numbers(text) or lone_counts(text, asked_things(question))


def _read_choices(words: tuple[str, ...], text: str, question: str) -> Sequence[Claim]:
    del question
    return choices(text, words)


def _dated(text: str) -> list[MomentClaim]:
    """Moments; a date beside a day of the week on which it does not fall is no day."""
    return [replace(claim, date=_NO_DAY) if falls_on_another(claim, text) else claim for claim in moments(text)]


def _clock_claims(text: str, question: str) -> list[Claim]:
    """Clock times; a date written elsewhere in the text belongs to those written without one."""
    del question
    found = _dated(text)
    dates = [claim.date for claim in found if claim.date is not None and claim.clock is None and claim.other_date is None]
    date = dates[0] if dates and all(other == dates[0] for other in dates) else None
    return [
        MomentClaim(claim.start, claim.end, claim.date or date, claim.clock, None, claim.is_half_open, claim.zone, claim.is_spoken)
        for claim in found
        if claim.clock is not None
    ]


def _date_claims(text: str, question: str) -> list[Claim]:
    del question
    return [claim for claim in _dated(text) if claim.date is not None]


def _lengths_and_numbers(text: str, question: str) -> list[Claim]:
    del question
    written = clock_lengths(text)
    text = blank(text, written)
    text = blank(text, moments(text))
    lengths = [*written, *durations(text)]
    text = blank(text, lengths)
    claims: list[Claim] = [
        *lengths,
        *(claim for claim in numbers(text) if claim.unit is not None or not _OF_A_THING.match(text[claim.end :])),
    ]
    return sorted(claims, key=lambda claim: claim.start)


_TRUTH = Kind("truth", truths, _is_same_word, True)
_NUMBER = Kind("number", _read_numbers, _match_number)
_CLOCK = Kind("clock", _clock_claims, _match_clock)
_DATE = Kind("date", _date_claims, _match_date)
_DURATION = Kind("duration", _lengths_and_numbers, _match_length)
