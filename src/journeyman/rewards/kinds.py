"""The kinds of expected values: how each is read from a text, and when a stated one is the expected one.

Numbers and times have readers of their own (numerals.py, times.py). Yes and no, and words of a class of choices, are read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from journeyman.rewards.clauses import Claim, Clause, blank, clauses, has_verb, negations
from journeyman.rewards.numerals import NumberClaim, is_open_share, is_same_number, lone_counts, number_claim, numbers
from journeyman.rewards.results import Value
from journeyman.rewards.times import (
    MONTH_SHORT,
    MONTHS,
    WEEKDAY_SHORT,
    WEEKDAYS,
    DurationClaim,
    MomentClaim,
    clock_lengths,
    durations,
    falls_on_another,
    moments,
    ordinals_as_numbers,
)
from journeyman.rewards.units import asked_things

# Words of which a right answer holds one: stating another one of the same class contradicts it.
OPPOSITES = (
    ("same", "different"), ("before", "after"), ("ahead", "behind"), ("earlier", "later"), ("more", "less"), ("higher", "lower"),
    ("larger", "smaller"), ("greater", "smaller"), ("longer", "shorter"), ("first", "second"), ("equal", "unequal"),
)  # fmt: skip
# "On which floor": "the 2nd", "the second".
_ASKS_PLACE = re.compile(
    r"\b(?:which|what)\s+(?:floor|storey|place|position|rank|row|line|page|level|grade|week|quarter|round|season|episode|chapter|edition)\b",
    re.I,
)
# "3 people": the number of a noun is no length.
_OF_A_THING = re.compile(
    r"\s+(?!(?:and|but|for|from|not|or|per|than|that|the|then|to|when|which|while|with|ahead|behind|full|whole|more|less|total)\b)[a-z]{3,}"
)
_TRUE_WORD = r"(?:true|correct|right(?!\s+(?:now|away|after))|accurate|the\s+case|so(?=\W*$))"
_FALSE_WORD = r"(?:false|incorrect|wrong|untrue|inaccurate)"
_BE = r"(?:\b(?:is|are|was|be|being|as|sounds?|seems?)\b|['’]s\b|n['’]t\b|\bnot\b)\s+(?:\w+ly\s+)?"
_TRUTH_WORD = re.compile(
    rf"(?:^\W*|{_BE})(?:(?P<true>{_TRUE_WORD})|(?P<false>{_FALSE_WORD}))\b|\b(?P<plain_true>true)\b|\b(?P<plain_false>false)\b"
    r"|\b(?P<yes>yes|yeah|yep|yup|affirmative|indeed|certainly|definitely|absolutely|of\s+course)\b|\b(?P<no>no|nope|negative)\b",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"(?:not|n['’]t|no)\s+(?:\w+\s+)?(?:known?|sure|certain|able|have|find|tell|understand|available|possible|specified|provided|clear)\b",
    re.I,
)
# "It does.": the question said in two words.
_SHORT_YES = re.compile(
    r"\W*(?:it|he|she|they|there|that|this|i|we|you)\s+(?:is|are|was|were|am|does|do|did|has|have|had|can|will)(?:\s+(?:one|so|too|indeed))?\W*",
    re.IGNORECASE,
)
# It stands for the words of the question that name the thing: "It has arrived." for "Has the parcel arrived?".
_PRONOUN = re.compile(r"\s*(?:it|he|she|they)\b", re.IGNORECASE)
_NOTHING_SAID = re.compile(r"\s+(?:doubt|problem|worries|question|need)\b", re.IGNORECASE)
_OPPOSITE_PREFIXES = ("un", "in", "im", "dis", "non")
# "Excludes" for "includes", "disabled" for "enabled".
_SWAPPED_PREFIXES = {"ex": "in", "in": "ex", "dis": "en", "en": "dis"}
_EMPHATIC = ("certainly", "definitely", "absolutely", "indeed")
_STOP_WORDS = frozenset(
    "never not isn doesn aren wasn don cannot think believe say any anymore longer there it's the and for are was does did has have had "
    "will would can could what which when where that this its currently now right "
    "they them she you nobody none nothing one anyone anybody anything someone somebody "
    "unfortunately sadly regrettably afraid sorry actually really yet still already according checked simply from until till".split()
)
_NO_DAY = (None, 0, 0)


@dataclass(frozen=True, slots=True)
class WordClaim(Claim):
    """A truth value ("true", "false") or a word of a class of choices. `is_open`: said of something that the question does not name."""

    value: str
    is_open: bool = False


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
        return Expected(value, _NUMBER, number_claim(value))
    text = value.strip()
    if text.casefold() in ("true", "false", "yes", "no"):
        return Expected(value, _TRUTH, WordClaim(0, 0, "true" if text.casefold() in ("true", "yes") else "false"))
    words = choice_class(text)
    if words is not None:
        kind = Kind(words[0], partial(_read_choices, words), _is_same_word, words in OPPOSITES)
        return Expected(value, kind, WordClaim(0, 0, text.casefold()))
    measure = _expect_measure(text)
    if measure is None and (labelled := re.fullmatch(r"[A-Za-z][\w ]{0,30}[:=]\s*(\S[^\n]*)", text)) is not None:
        # "Result: 391": what counts is the value behind the label, if it is of a kind that can be recognised alone.
        inner = expect(labelled[1])
        measure = inner if inner.kind is not None else None
    return measure or Expected(value, None, None)


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
    text = blank(text, [claim.span for claim in moments(text)])
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
    dated = _dated(text)
    dates = [claim.date for claim in dated if claim.date is not None and claim.clock is None and claim.other_date is None]
    date = dates[0] if dates and all(other == dates[0] for other in dates) else None
    return [
        MomentClaim(claim.start, claim.end, claim.date or date, claim.clock, None, claim.is_half_open, claim.zone, claim.is_spoken)
        for claim in dated
        if claim.clock is not None
    ]


def _date_claims(text: str, question: str) -> list[Claim]:
    del question
    return [claim for claim in _dated(text) if claim.date is not None]


def _lengths_and_numbers(text: str, question: str) -> list[Claim]:
    del question
    written = clock_lengths(text)
    text = blank(text, [claim.span for claim in written])
    text = blank(text, [claim.span for claim in moments(text)])
    lengths = [*written, *durations(text)]
    text = blank(text, [claim.span for claim in lengths])
    claims: list[Claim] = [
        *lengths,
        *(claim for claim in numbers(text) if claim.unit is not None or not _OF_A_THING.match(text[claim.end :])),
    ]
    return sorted(claims, key=lambda claim: claim.start)


def truths(text: str, question: str = "") -> list[WordClaim]:
    """Yes and no, also as "true", "is not", "not true", or as a sentence that says what the question asks; "I do not know" is neither.

    Example:
        >>> [claim.value for claim in truths("I do not think that it is true.")]
        ['false']
        >>> [claim.value for claim in truths("Oslo has summer time.", "Does Oslo have summer time?")]
        ['true']
    """
    claims = [claim for clause in clauses(text) for claim in _truths_of(clause, question)]
    # "Yes, it has a projector, but no whiteboard": the second is about another thing; "yes, but it isn't" is not.
    firm = [claim for claim in claims if not claim.is_open or re.match(r"\W*(?:$|[.!?;])", text[claim.end :])]
    return firm or [claim for clause in clauses(text) if (claim := _restates(clause, question)) is not None] or claims


def _truths_of(clause: Clause, question: str) -> list[WordClaim]:
    if _UNKNOWN.search(clause.text):
        return []
    words = [match for match in _TRUTH_WORD.finditer(clause.text) if not _NOTHING_SAID.match(clause.text[match.end() :])]
    literal, meant = (_plain(negations(clause.text, is_literal=one)) for one in (True, False))
    if meant or any(match["no"] for match in words):
        words = [match for match in words if match[0].lower() not in _EMPHATIC]
    # "It is not the case that it is not": two negations are not unravelled.
    is_elsewhere = len(meant) > 1 or bool(question.strip() and _content_words(clause.text) - _asked_words(question))
    claims, is_spent = [], False
    for match in words:
        is_true = match["yes"] is not None or match["true"] is not None or match["plain_true"] is not None
        if match["yes"] is None and match["no"] is None:
            is_true ^= len([one for one in literal if one.start() < match.end()]) % 2 == 1
            is_spent = True
        is_article = match["no"] is not None and re.match(r"\s+\w", clause.text[match.end() :]) is not None
        claims.append(_truth(clause, match.span(), is_true, (is_article and is_elsewhere) or len(meant) > 1))
    if meant and not is_spent and not any(match["no"] for match in words):
        claims.append(_truth(clause, meant[0].span(), False, is_elsewhere))
    return claims


def _plain(negators: list[re.Match[str]]) -> list[re.Match[str]]:
    """Those that are not themselves words for false."""
    return [one for one in negators if not re.fullmatch(rf"no|{_FALSE_WORD}", one[0], re.IGNORECASE)]


def _truth(clause: Clause, span: tuple[int, int], is_true: bool, is_open: bool) -> WordClaim:
    return WordClaim(clause.start + span[0], clause.start + span[1], "true" if is_true else "false", is_open)


def _restates(clause: Clause, question: str) -> WordClaim | None:
    """A sentence in the words of a question that has no negation is a yes, and so is "it does"."""
    if question and _SHORT_YES.fullmatch(clause.text) and not clause.is_asked:
        return WordClaim(clause.start, clause.end, "true")
    wanted, last, said = _content_words(question), _asked_words(question), _content_words(clause.text)
    opposites = {word for word in said - wanted if any(other in wanted for other in _without_prefix(clause.text, word))}
    is_sentence = has_verb(clause.text) or _takes_the_verb(clause.text, question, wanted | opposites)
    if len(wanted) < 2 or negations(question) or clause.is_asked or not is_sentence:
        return None
    said = said - opposites
    is_negated = bool(negations(clause.text))
    if opposites and said <= wanted:
        return WordClaim(clause.start, clause.end, "true" if is_negated else "false")
    is_enough = len(said) >= 2 or (len(said) == 1 and _PRONOUN.match(clause.text) is not None)
    is_said = not is_negated and said <= wanted and is_enough and len(said & last) >= 0.5 * len(last)
    return WordClaim(clause.start, clause.end, "true") if is_said else None


def _takes_the_verb(text: str, question: str, known: set[str]) -> bool:
    """ "It includes VAT" for "Does it include VAT?": one of the known content words with an ending that the question has not."""
    if not re.match(r"\W*(?:do|does|did)\b", question, re.IGNORECASE):
        return False
    said = set(re.findall(r"[^\W_]+", text.casefold())) - set(re.findall(r"[^\W_]+", question.casefold()))
    return any(word.endswith(("s", "ed")) and _stem(word) in known for word in said)


def _without_prefix(text: str, start: str) -> set[str]:
    """The opposites of a text's words that begin so, as content words: "unassigned" and "assigned", "excludes" and "includes"."""
    words = [word for word in re.findall(r"[^\W_]+", text.casefold()) if word.startswith(start)]
    prefixes = [(prefix, "") for prefix in _OPPOSITE_PREFIXES] + list(_SWAPPED_PREFIXES.items())
    return {_stem(other + word.removeprefix(prefix)) for word in words for prefix, other in prefixes if word.startswith(prefix)}


def _asked_words(question: str) -> set[str]:
    asked = clauses(question)
    return _content_words(asked[-1].text) if asked else set()


def _content_words(text: str) -> set[str]:
    words = re.findall(r"[^\W_]+", text.casefold())
    return {
        _stem(word)
        for word in words
        if len(word) > 2 and not word.isdigit() and word not in _STOP_WORDS and not _TRUTH_WORD.fullmatch(word)
    }


def _stem(word: str) -> str:
    return word.removesuffix("s")[:5]


def choice_class(value: str) -> tuple[str, ...] | None:
    """The class of words of which `value` is one, or None."""
    word = value.strip().casefold()
    return next((words for words in (WEEKDAYS, MONTHS, *OPPOSITES) if word in words), None)


def choices(text: str, words: tuple[str, ...]) -> list[WordClaim]:
    """The words of one class; "not the same" is "different" where a class has two words."""
    claims = []
    more = "|differs?" if "different" in words else ""
    plural = "s?" if words == WEEKDAYS else ""
    for match in re.finditer(
        rf"(?P<not>(?:\bnot|n['’]t)\s+(?:\w+\s+){{0,2}}?)?(?<!sooner or )\b(?P<word>{'|'.join(words)}{more}){plural}\b", text, re.IGNORECASE
    ):
        word = match["word"].lower()
        if words == MONTHS and word in ("may", "march") and match["word"][0].islower():
            continue
        word, start = "different" if word.startswith("differ") else word, match.start("word")
        if match["not"] and len(words) == 2:
            word, start = words[1 - words.index(word)], match.start()
        claims.append(WordClaim(start, match.end(), word))
    short: dict[str, int] = WEEKDAY_SHORT if words == WEEKDAYS else MONTH_SHORT if words == MONTHS else {}
    if short:
        matches = re.finditer(rf"\b(?:{'|'.join(short)})\b", text)
        claims += [WordClaim(match.start(), match.end(), words[short[match[0]]]) for match in matches]
    return sorted(claims, key=lambda claim: claim.start)


_TRUTH = Kind("truth", truths, _is_same_word, True)
_NUMBER = Kind("number", _read_numbers, _match_number)
_CLOCK = Kind("clock", _clock_claims, _match_clock)
_DATE = Kind("date", _date_claims, _match_date)
_DURATION = Kind("duration", _lengths_and_numbers, _match_length)
