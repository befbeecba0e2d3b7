"""Does an answer in words state the expected values? Pure functions on text; no model, no word lists of any one server.

The rules:

* The values of the expected one's kind that the answer states are read in order; those that the question already held do not
  count. The first that remains is what the answer claims: naming more values can therefore never help. More than
  `MAX_OTHER_VALUES` others, or alternatives ("5 or 7", "5, 7"), are no answer.
* numbers: equal by value ("1,234.50" = 1234.5, relative 1e-12). A fraction may be rounded to the precision written, if what is
  written keeps at least 2 significant digits after rounding to decimals, or 3 when rounded to whole numbers (3.14159 = "3.1",
  not "3"; 1234.56 = "1,235"; 12.5 is not "13"). Whole numbers are never rounded.
* truth values: yes/no, true/false, "is not". Both in one answer contradict each other, unless both are expected in that order.
* date-times: the clock time to the minute (seconds must agree where written), 24-hour or with am/pm; a date, where written,
  must agree too.
* durations: same length in any unit ("+9.0h" = "9 hours"), or the bare number in the expected unit. A written sign must agree.
* anything else: the words of the value, in order, as whole words, whatever the case and punctuation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from journeyman.rewards.claims import (
    OPPOSITES,
    Claim,
    DurationClaim,
    MomentClaim,
    NumberClaim,
    WordClaim,
    blank,
    choice_class,
    choices,
    digits_for_words,
    durations,
    moments,
    numbers,
    truths,
)

Value = str | float | int | bool

MAX_OTHER_VALUES = 1
"""How many further values of the same kind an answer may name beside the expected ones ("42 of 100")."""

_MIN_ECHO_WORDS = 5
# After a value: "is not a …", "isn't right", "cannot be", "does not equal", "is wrong". What it does not say of itself is no denial
# ("Oslo is not in summer time", "9 is not only …", "16:20 is not wrong").
_ITSELF = r"(?=\s+(?:an?|the|right|correct|true|valid|it|what|equal|be|my|your)\b|\s*(?:[.!,;)]|$))"
_WRONG = r"(?:wrong|false|incorrect|untrue|invalid)\b"
_DENIED_AFTER = re.compile(
    r"['\"”’`*)\]]*\s*"
    rf"(?:(?:(?:is|are|was|were|do|does|did|can|could|would|should|will)\s*(?:n['’]t|not)\b|cannot\b){_ITSELF}"
    rf"|(?:,\s*which\s+|[?!.,]?\s*(?:no,?\s+)?(?:that|this|it)\s+)?(?:is|was|seems|looks)\s+{_WRONG}"
    rf"|,\s*which\s+(?:is|was)(?:\s+not|n['’]t)\s+(?:right|correct|true|valid)\b"
    r"|\(?\s*(?:not\s+(?:true|right|correct|valid))\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether one expected value is stated. `states_kind`: the answer claims some value of that kind, right or wrong."""

    is_right: bool
    states_kind: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """How values of one kind are read from a text and compared. `name` groups expected values that share their claims."""

    name: str
    read: Callable[[str], Sequence[Claim]]
    is_same: Callable[[Claim, Claim], bool]
    max_others: int = MAX_OTHER_VALUES
    ignores_question: bool = False


@dataclass(frozen=True, slots=True)
class _Expected:
    """An expected value, as a claim of its kind; None for text."""

    value: Value
    kind: _Kind | None
    claim: Claim | None


def agrees(expected: Value, answer: str, question: str = "") -> bool:
    """Whether `answer` states `expected`.

    Example:
        >>> agrees("2026-11-22T15:05:00+09:00", "It is 3:05 pm in Tokyo."), agrees(9, "It is 19.")
        (True, False)
    """
    return compare([expected], answer, question)[0].is_right


def compare(expected: Sequence[Value], answer: str, question: str = "", others: Sequence[str] = ()) -> list[Agreement]:
    """One Agreement per expected value, in order. Values of one kind must be stated in the order given.

    Args:
        question: the task; what it already names is not counted as stated by the answer.
        others: further texts that stood beside the expected ones in the result: an answer listing more than two of them is a dump.
    """
    if is_question_echo(answer, question):
        return [Agreement(False, False, "repeats the question") for _ in expected]
    items = [_expect(value) for value in expected]
    found: list[Agreement | None] = [None] * len(items)
    for index, item in enumerate(items):
        if item.kind is None:
            found[index] = _compare_text(str(item.value), answer, others)
        elif found[index] is None:
            name = item.kind.name
            indexes = [i for i, other in enumerate(items) if other.kind is not None and other.kind.name == name]
            claims = [claim for i in indexes if (claim := items[i].claim) is not None]
            for i, agreement in zip(indexes, _compare_claims(item.kind, claims, answer, question), strict=True):
                found[i] = agreement
    return [agreement for agreement in found if agreement is not None]


def is_question_echo(answer: str, question: str) -> bool:
    """Whether the answer is mostly one run of words copied from the question."""
    said, asked = words_of(answer), words_of(question)
    if not said or len(said) < _MIN_ECHO_WORDS or not asked:
        return False
    longest, previous = 0, [0] * (len(asked) + 1)
    for word in said:
        current = [0] * (len(asked) + 1)
        for column, other in enumerate(asked, start=1):
            if word == other:
                current[column] = previous[column - 1] + 1
        longest = max(longest, *current)
        previous = current
    return longest >= max(_MIN_ECHO_WORDS, 0.8 * len(said))


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers; `America/New_York` is three words."""
    return re.findall(r"[^\W_]+(?:['’.,:][^\W_]+)*", text.casefold())


def _expect(value: Value) -> _Expected:
    """Find out what kind of value is expected."""
    if isinstance(value, bool):
        return _Expected(value, _TRUTH, WordClaim(0, 0, str(value).lower()))
    if isinstance(value, int | float):
        return _Expected(value, _NUMBER, NumberClaim(0, 0, float(value), 0, 0, True))
    text = value.strip()
    if text.casefold() in ("true", "false", "yes", "no"):
        return _Expected(value, _TRUTH, WordClaim(0, 0, "true" if text.casefold() in ("true", "yes") else "false"))
    words = choice_class(text)
    if words is not None:
        is_opposite = words in OPPOSITES
        kind = _Kind(words[0], partial(choices, words=words), _is_same_word, 0 if is_opposite else MAX_OTHER_VALUES, is_opposite)
        return _Expected(value, kind, WordClaim(0, 0, text.casefold()))
    found = _expect_measure(text)
    if found is None and (labelled := re.fullmatch(r"[A-Za-z][\w ]{0,30}[:=]\s*(\S[^\n]*)", text)) is not None:
        # "Result: 391": what counts is the value behind the label, if it is of a kind that can be recognised alone.
        inner = _expect(labelled[1])
        found = inner if inner.kind is not None else None
    return found or _Expected(value, None, None)


def _expect_measure(text: str) -> _Expected | None:
    """A moment, a duration or a number that makes up the whole of `text`."""
    readers: tuple[tuple[_Kind, Callable[[str], Sequence[Claim]]], ...] = (
        (_CLOCK, moments),
        (_DURATION, durations),
        (_NUMBER, numbers),
    )
    for kind, read in readers:
        claims = read(text)
        if not claims or claims[0].start != 0 or claims[0].end != len(text):
            continue
        claim = claims[0]
        if isinstance(claim, MomentClaim) and (claim.clock is None or _is_bare_midnight(claim, text)):
            return _Expected(text, _DATE, claim)
        if isinstance(claim, DurationClaim):
            # The bare number in the expected unit counts too ("+9.0h" = "9").
            in_unit = numbers(re.sub(r"[A-Za-z]+$", "", text).strip())
            return _Expected(text, _duration_kind(in_unit if len(in_unit) == 1 else ()), claim)
        return _Expected(text, kind, claim)
    return None


def _is_bare_midnight(claim: MomentClaim, text: str) -> bool:
    """A date that a library wrote as a date-time ("2026-11-22T00:00:00", no offset)."""
    return claim.date is not None and claim.clock == (0, 0, 0) and text.endswith("00:00:00")


def _compare_claims(kind: _Kind, expected: Sequence[Claim], answer: str, question: str) -> list[Agreement]:
    answer, question = digits_for_words(answer), digits_for_words(question)
    stated = list(kind.read(answer))
    asked = [] if kind.ignores_question else list(kind.read(question))
    wanted = [claim for i, claim in enumerate(expected) if i == 0 or not kind.is_same(expected[i - 1], claim)]

    def is_wanted(claim: Claim) -> bool:
        return any(kind.is_same(want, claim) for want in expected)

    counted = [claim for claim in stated if is_wanted(claim) or not any(kind.is_same(one, claim) for one in asked)]
    sequence = [claim for i, claim in enumerate(counted) if i == 0 or not kind.is_same(counted[i - 1], claim)]
    fault = _fault(kind, stated, counted, is_wanted, answer)
    if kind.name == "truth" and len(sequence) > len(wanted):
        fault = "contradicts itself"
    if fault is not None:
        return [Agreement(False, bool(counted), fault) for _ in expected]
    out: list[Agreement] = []
    place = -1
    for i, claim in enumerate(expected):
        if i == 0 or not kind.is_same(expected[i - 1], claim):
            place += 1
        if place < len(sequence):
            is_right = kind.is_same(claim, sequence[place]) and place < len(wanted)
            said = answer[sequence[place].start : sequence[place].end]
            if is_right and kind.name != "truth" and _is_denied(kind, claim, counted, answer):
                out.append(Agreement(False, True, f"states {said!r} and denies it"))
            else:
                out.append(Agreement(is_right, True, f"states {said!r}" + ("" if is_right else ": another value")))
        else:
            out.append(Agreement(False, bool(counted), "states no such value"))
    return out


def _is_denied(kind: _Kind, wanted: Claim, counted: Sequence[Claim], answer: str) -> bool:
    """Whether what follows the value denies it ("14:05 is not right") where it is stated last."""
    stated = [claim for claim in counted if kind.is_same(wanted, claim)]
    return bool(stated) and is_denied_after(answer[stated[-1].end :])


def is_denied_after(text: str) -> bool:
    """Whether a text that follows a value begins by denying it. "15:05, not 14:05" denies what comes next, not what stood before.

    Example:
        >>> is_denied_after(" is not a datetime."), is_denied_after(", not 14:05"), is_denied_after(" is wrong")
        (True, False, True)
    """
    return _DENIED_AFTER.match(text) is not None


def _fault(kind: _Kind, stated: Sequence[Claim], counted: Sequence[Claim], is_wanted: Callable[[Claim], bool], answer: str) -> str | None:
    """Why the answer as a whole claims nothing definite, or None."""
    others: list[Claim] = []
    for claim in counted:
        if not is_wanted(claim) and not any(kind.is_same(other, claim) for other in others):
            others.append(claim)
    if len(others) > kind.max_others:
        return f"states {len(others)} other values"
    for left, right in pairwise(stated):
        between = answer[left.end : right.start]
        is_listing = re.fullmatch(r"[\s,]*(?:\bor\b|/)\s*(?:\w+\s+){0,3}", between, re.IGNORECASE) or (
            not between.strip(" ,;/\n") and not (is_wanted(left) and is_wanted(right))
        )
        if is_listing and not kind.is_same(left, right):
            return "offers alternatives"
    return None


def _compare_text(expected: str, answer: str, others: Sequence[str]) -> Agreement:
    position = find_text(expected, answer)
    if position is None:
        return Agreement(False, bool(words_of(answer)), "the value does not occur")
    before, after = answer[: position[0]], answer[position[1] :]
    if is_denied_after(after):
        return Agreement(False, True, "the value is stated and denied")
    if re.search(r"\b(?:not|n['’]t)\s+(?:the\s+)?['\"]?$", before, re.IGNORECASE):
        return Agreement(False, True, "the value is negated")
    if re.search(r"\bor\s+['\"]?$", before, re.IGNORECASE) or re.match(r"['\"]?,?\s+or\b", after, re.IGNORECASE):
        return Agreement(False, True, "offers alternatives")
    listed = [other for other in others if other != expected and find_text(other, answer) is not None]
    if len(listed) > 2:
        return Agreement(False, True, f"lists {len(listed)} other values of the result")
    return Agreement(True, True, "states the value")


def find_text(value: str, text: str) -> tuple[int, int] | None:
    """Where `text` holds `value` as whole words, or None. Case and the punctuation between words do not matter, except that a
    single letter must have the same case and a value with other signs in it (`C++`) must stand there literally."""
    value = value.strip()
    if not value:
        return None
    words = re.findall(r"[^\W_]+", value)
    if len(value) == 1 or not words or re.search(r"[^\w\s/.,:;!?'\"()’-]", value):
        pattern, flags = rf"(?<!\w){re.escape(value)}(?![\w+#])", 0 if len(value) == 1 else re.IGNORECASE
    else:
        before = r"(?<![^\W_])" + (r"(?<!\d[.,:/-])" if words[0][0].isdigit() else "")
        after = r"(?![^\W_])" + (r"(?![.,:/-]\d)" if words[-1][-1].isdigit() else "")
        pattern, flags = before + r"[\W_]+".join(map(re.escape, words)) + after, re.IGNORECASE
    match = re.search(pattern, text, flags)
    return None if match is None else match.span()


def _is_same_number(left: Claim, right: Claim) -> bool:
    """`right` as written may be a rounding of `left`."""
    assert isinstance(left, NumberClaim)
    assert isinstance(right, NumberClaim)
    if math.isclose(left.value, right.value, rel_tol=1e-12, abs_tol=1e-15):
        return True
    if left.value == round(left.value) or right.num_digits < (2 if right.decimals else 3):
        return False
    return abs(left.value - right.value) <= 0.5 * 10.0**-right.decimals * (1 + 1e-9)


def _is_same_word(left: Claim, right: Claim) -> bool:
    return isinstance(left, WordClaim) and isinstance(right, WordClaim) and left.value == right.value


def _is_same_date(left: Claim, right: Claim) -> bool:
    if not (isinstance(left, MomentClaim) and isinstance(right, MomentClaim)) or left.date is None or right.date is None:
        return False
    years = {left.date[0], right.date[0]} - {None}
    return left.date[1:] == right.date[1:] and len(years) <= 1


def _is_same_clock(left: Claim, right: Claim) -> bool:
    if not (isinstance(left, MomentClaim) and isinstance(right, MomentClaim)) or left.clock is None or right.clock is None:
        return False
    if left.date is not None and right.date is not None and not _is_same_date(left, right):
        return False
    seconds = {left.clock[2], right.clock[2]} - {None}
    return left.clock[:2] == right.clock[:2] and len(seconds) <= 1


def _is_same_length(unit_numbers: Sequence[NumberClaim], left: Claim, right: Claim) -> bool:
    """`left` may be the expected length; a bare number counts in its unit."""
    if isinstance(left, NumberClaim) and isinstance(right, NumberClaim):
        return _is_same_number(left, right)
    if isinstance(left, NumberClaim):
        left, right = right, left
    assert isinstance(left, DurationClaim)
    if isinstance(right, NumberClaim):
        return any(_is_same_size(one.value, right.value, right.is_signed, 1e-9) for one in unit_numbers)
    assert isinstance(right, DurationClaim)
    return _is_same_size(left.seconds, right.seconds, left.is_signed and right.is_signed, 0.5)


def _is_same_size(left: float, right: float, is_signed: bool, tolerance: float) -> bool:
    if is_signed:
        return abs(left - right) <= tolerance
    return abs(abs(left) - abs(right)) <= tolerance


def _clock_claims(text: str) -> list[Claim]:
    """Clock times; a date written elsewhere in the text belongs to those written without one."""
    found = moments(text)
    dates = [claim.date for claim in found if claim.date is not None and claim.clock is None]
    date = dates[0] if dates and all(other == dates[0] for other in dates) else None
    return [MomentClaim(claim.start, claim.end, claim.date or date, claim.clock) for claim in found if claim.clock is not None]


def _date_claims(text: str) -> list[Claim]:
    return [claim for claim in moments(text) if claim.date is not None]


def _lengths_and_numbers(text: str) -> list[Claim]:
    lengths = durations(text)
    claims: list[Claim] = [*lengths, *numbers(blank(text, lengths))]
    return sorted(claims, key=lambda claim: claim.start)


def _duration_kind(unit_numbers: Sequence[NumberClaim]) -> _Kind:
    return _Kind("duration", _lengths_and_numbers, partial(_is_same_length, unit_numbers))


_TRUTH = _Kind("truth", truths, _is_same_word, 0, True)
_NUMBER = _Kind("number", numbers, _is_same_number)
_CLOCK = _Kind("clock", _clock_claims, _is_same_clock)
_DATE = _Kind("date", _date_claims, _is_same_date)
_DURATION = _duration_kind(())
