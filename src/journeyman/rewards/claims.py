"""What a text states: the numbers, moments, durations, truth values and choices in it, in the order they stand there.

For comparing an answer in words with an expected value (agreement.py). Not a parser of natural language: it knows the written forms
of values and nothing of what a sentence says about them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# Words of which a right answer holds one: stating another one of the same class contradicts it.
OPPOSITES = (
    ("same", "different"), ("before", "after"), ("ahead", "behind"), ("earlier", "later"), ("more", "less"), ("higher", "lower"),
    ("larger", "smaller"), ("greater", "smaller"), ("longer", "shorter"), ("first", "second"), ("equal", "unequal"),
)  # fmt: skip

_WEEKDAY_SHORT = {"Mon": 0, "Tue": 1, "Tues": 1, "Wed": 2, "Thu": 3, "Thur": 3, "Thurs": 3, "Fri": 4, "Sat": 5, "Sun": 6}
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

_SIGN = r"(?P<sign>[-+−])?"
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_NUMBER_PATTERN = re.compile(
    rf"(?<![\w.,:/]){_SIGN}[$€£¥]?(?P<number>{_NUMBER})(?P<exponent>[eE][-+]?\d+)?"
    r"(?:%|°[CF]?|(?:ms|hrs?|mins?|min|secs?|km|kg|cm|mm|kb|mb|gb|h|m|s|g|l|c|f|d)(?!\w))?(?!\w)(?![.,:/]\d)",
)
_UNIT = r"(?:milliseconds?|ms|seconds?|secs?|sec|s|minutes?|mins?|min|m|hours?|hrs?|hr|h|days?|d|weeks?|w)(?![A-Za-z0-9])"
_DURATION_PART = rf"{_NUMBER}[\s-]?{_UNIT}"
_DURATION_PATTERN = re.compile(rf"(?<![\w.,:/]){_SIGN}(?P<parts>{_DURATION_PART}(?:(?:,?\s*(?:and\s+)?){_DURATION_PART})*)", re.IGNORECASE)
_DURATION_PIECE = re.compile(rf"({_NUMBER})[\s-]?({_UNIT})", re.IGNORECASE)
_ISO_DURATION = re.compile(
    r"(?<!\w)(?P<sign>-)?P(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?(?!\w)"
)
_HALF_DAY = r"(?:\s*(?P<half>[ap]\.?m\b\.?))"
_ISO_MOMENT = re.compile(
    r"(?<![\w-])(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    r"(?:(?:[T ]|,? at )(?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.\d+)?)?\s?(?:Z|[+-]\d{2}:?\d{2})?)?(?![\d-])"
)
_CLOCK = re.compile(
    rf"(?<![\w:.+−/-])(?P<hour>\d{{1,2}}):(?P<minute>\d{{2}})(?::(?P<second>\d{{2}})(?:\.\d+)?)?{_HALF_DAY}?(?![\w:]|\.\d)",
    re.IGNORECASE,
)
_HOUR_ONLY = re.compile(rf"(?<![\w:.+−/-])(?P<hour>\d{{1,2}}){_HALF_DAY}(?![\w:])", re.IGNORECASE)
_CLOCK_WORD = re.compile(r"\b(noon|midday|midnight)\b", re.IGNORECASE)
_MONTH_NAME = r"(?P<name>" + "|".join(f"{month[:3]}(?:{month[3:]})?" for month in MONTHS) + r"|sept)\.?"
_DAY_MONTH = re.compile(
    rf"(?<![\w:])(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH_NAME}\b(?:,?\s+(?P<year>\d{{4}})(?!\d|:))?",
    re.IGNORECASE,
)
_MONTH_DAY = re.compile(
    rf"\b{_MONTH_NAME}\s+(?:the\s+)?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?![\w:])(?:,?\s+(?P<year>\d{{4}})(?!\d|:))?",
    re.IGNORECASE,
)
_SLASH_DATE = re.compile(r"(?<![\w/])(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d{4})(?![\w/])")
_UNSURE = r"(?!\s+(?:known?|sure|certain|able|have|find|tell|understand|available|possible|specified|provided)\b)"
_NOT = r"(?:\b(?:is|was|are|were)\s*)?(?:\bnot|n['’]t)\s+"
_TRUTH = re.compile(
    rf"(?P<flip>{_NOT}(?:the\s+case|true|correct|right)\b)|(?P<flop>{_NOT}(?:false|incorrect|wrong)\b)"
    r"|(?P<no>\b(?:no|nope|false)\b)|(?P<yes>\b(?:yes|yeah|yep|true)\b)"
    rf"|(?P<negated>\b(?:is|are|was|were|does|did|will|has|had)(?:\s+(?:\w+\s+)?not\b|n['’]t\b){_UNSURE})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A value that a text states. `start` and `end` are where, in characters of the text searched."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class NumberClaim(Claim):
    """`decimals` and `num_digits` (significant ones) are as written: they tell how far it may have been rounded."""

    value: float
    decimals: int
    num_digits: int
    is_signed: bool


@dataclass(frozen=True, slots=True)
class MomentClaim(Claim):
    """A date (year may be missing), a clock time (seconds may be missing), or both."""

    date: tuple[int | None, int, int] | None
    clock: tuple[int, int, int | None] | None


@dataclass(frozen=True, slots=True)
class DurationClaim(Claim):
    """`seconds` is negative only with a written minus; `is_signed` when a sign was written."""

    seconds: float
    is_signed: bool


@dataclass(frozen=True, slots=True)
class WordClaim(Claim):
    """A truth value ("true", "false") or a word of a class of choices."""

    value: str


def digits_for_words(text: str) -> str:
    """ "nine hours" -> "9 hours". A lone "one" stays a word (a pronoun more often than a number) unless a unit of time follows."""

    def replaced(match: re.Match[str]) -> str:
        tens, unit, word = match["tens"], match["unit"], match["word"]
        if tens:
            return str((_TENS.index(tens.lower()) + 2) * 10 + (_SMALL.index(unit.lower()) if unit else 0))
        return str(_SMALL.index(word.lower()))

    text = re.sub(r"\bone(?=\s+(?:hour|minute|second|day|week)\b)", "1", text, flags=re.IGNORECASE)
    small = "|".join(word for word in _SMALL if word != "one")
    units = "|".join(_SMALL[1:10])
    pattern = rf"\b(?:(?P<tens>{'|'.join(_TENS)})(?:[-\s](?P<unit>{units}))?|(?P<word>{small}))\b"
    return re.sub(pattern, replaced, text, flags=re.IGNORECASE)


def _is_minus(sign: str | None, before: str) -> bool:
    return sign in ("-", "−") or re.search(r"\b(?:minus|negative)\s*$", before, re.IGNORECASE) is not None


def numbers(text: str) -> list[NumberClaim]:
    """Numbers that stand alone (not in a word, a date, a clock time or a fraction)."""
    text = blank(text, moments(text))
    found = []
    for match in _NUMBER_PATTERN.finditer(text):
        written = match["number"].replace(",", "")
        is_minus = _is_minus(match["sign"], text[: match.start()])
        value = float(written + (match["exponent"] or ""))
        decimals = len(written.partition(".")[2])
        found.append(
            NumberClaim(
                match.start(),
                match.end(),
                value=-value if is_minus else value,
                decimals=decimals,
                num_digits=len(written.replace(".", "").lstrip("0")),
                is_signed=is_minus or match["sign"] is not None,
            )
        )
    return found


def durations(text: str) -> list[DurationClaim]:
    """Lengths of time: "9 hours", "+9.0h", "3 hours and 15 minutes", "PT3H15M"."""
    found = []
    for match in _DURATION_PATTERN.finditer(text):
        pieces = _DURATION_PIECE.findall(match["parts"])
        seconds = sum(float(number.replace(",", "")) * _unit_seconds(unit) for number, unit in pieces)
        is_minus = _is_minus(match["sign"], text[: match.start()])
        found.append(DurationClaim(match.start(), match.end(), -seconds if is_minus else seconds, is_minus or bool(match["sign"])))
    for match in _ISO_DURATION.finditer(text):
        parts = {unit: float(match[unit]) for unit in ("d", "h", "m", "s") if match[unit]}
        if parts:
            seconds = sum(amount * _UNIT_SECONDS[unit] for unit, amount in parts.items())
            is_minus = match["sign"] is not None
            found.append(DurationClaim(match.start(), match.end(), -seconds if is_minus else seconds, is_minus))
    return sorted(found, key=lambda claim: claim.start)


def _unit_seconds(unit: str) -> float:
    unit = unit.lower()
    return _UNIT_SECONDS["ms" if unit == "ms" or unit.startswith("milli") else unit[0]]


def moments(text: str) -> list[MomentClaim]:
    """Dates and clock times in ISO form, in words ("22 November 2026", "3:05 pm", "noon"), and with slashes (both readings)."""
    found: list[MomentClaim] = []
    for finder in (_iso_moments, _clocks, _hours_only, _clock_words, _named_dates, _slash_dates):
        claims = list(finder(text))
        text = blank(text, claims)
        found += claims
    return sorted(found, key=lambda claim: claim.start)


def _iso_moments(text: str) -> Iterator[MomentClaim]:
    for match in _ISO_MOMENT.finditer(text):
        clock = None
        if match["hour"]:
            clock = (int(match["hour"]), int(match["minute"]), int(match["second"]) if match["second"] else None)
        yield MomentClaim(match.start(), match.end(), (int(match["year"]), int(match["month"]), int(match["day"])), clock)


def _hour_of_day(hour: int, half: str | None) -> int | None:
    if half is None:
        return hour if hour < 24 else None
    if not 1 <= hour <= 12:
        # "14:30 pm" is written often enough; it can only mean 14:30.
        return hour if 12 < hour < 24 and half.lower().startswith("p") else None
    return hour % 12 + (12 if half.lower().startswith("p") else 0)


def _clocks(text: str) -> Iterator[MomentClaim]:
    for match in _CLOCK.finditer(text):
        hour, minute = _hour_of_day(int(match["hour"]), match["half"]), int(match["minute"])
        if hour is not None and minute < 60:
            second = int(match["second"]) if match["second"] else None
            yield MomentClaim(match.start(), match.end(), None, (hour, minute, second))


def _hours_only(text: str) -> Iterator[MomentClaim]:
    for match in _HOUR_ONLY.finditer(text):
        hour = _hour_of_day(int(match["hour"]), match["half"])
        if hour is not None:
            yield MomentClaim(match.start(), match.end(), None, (hour, 0, None))


def _clock_words(text: str) -> Iterator[MomentClaim]:
    for match in _CLOCK_WORD.finditer(text):
        yield MomentClaim(match.start(), match.end(), None, (0 if match[0].lower() == "midnight" else 12, 0, None))


def _named_dates(text: str) -> Iterator[MomentClaim]:
    for pattern in (_DAY_MONTH, _MONTH_DAY):
        claims = []
        for match in pattern.finditer(text):
            month = [name[:3] for name in MONTHS].index(match["name"][:3].lower()) + 1
            date = (int(match["year"]) if match["year"] else None, month, int(match["day"]))
            claims.append(MomentClaim(match.start(), match.end(), date, None))
        yield from claims
        text = blank(text, claims)


def _slash_dates(text: str) -> Iterator[MomentClaim]:
    for match in _SLASH_DATE.finditer(text):
        first, second, year = int(match["first"]), int(match["second"]), int(match["year"])
        for day, month in {(first, second), (second, first)}:
            if 1 <= month <= 12:
                yield MomentClaim(match.start(), match.end(), (year, month, day), None)


def truths(text: str) -> list[WordClaim]:
    """Yes and no, also as "true", "is not", "not true"; "I do not know" is neither."""
    found = []
    for match in _TRUTH.finditer(text):
        is_true = match["yes"] is not None or match["flop"] is not None
        found.append(WordClaim(match.start(), match.end(), "true" if is_true else "false"))
    return found


def choice_class(value: str) -> tuple[str, ...] | None:
    """The class of words of which `value` is one, or None."""
    word = value.strip().casefold()
    return next((words for words in (WEEKDAYS, MONTHS, *OPPOSITES) if word in words), None)


def choices(text: str, words: tuple[str, ...]) -> list[WordClaim]:
    """The words of one class; "not the same" is "different" where a class has two words."""
    found = []
    for match in re.finditer(rf"(?P<not>\bnot\s+(?:the\s+)?)?\b(?P<word>{'|'.join(words)})\b", text, re.IGNORECASE):
        word = match["word"].lower()
        if match["not"]:
            if len(words) != 2:
                continue  # "not Sunday" states no day
            word = words[1 - words.index(word)]
        found.append(WordClaim(match.start(), match.end(), word))
    if words == WEEKDAYS:
        short = re.finditer(rf"\b(?:{'|'.join(_WEEKDAY_SHORT)})\b", text)
        found += [WordClaim(match.start(), match.end(), WEEKDAYS[_WEEKDAY_SHORT[match[0]]]) for match in short]
    return sorted(found, key=lambda claim: claim.start)


def blank(text: str, claims: list[MomentClaim] | list[DurationClaim]) -> str:
    """The text with these claims overwritten by a filler, so that their digits are not read again; positions stay."""
    for claim in claims:
        text = text[: claim.start] + "\x00" * (claim.end - claim.start) + text[claim.end :]
    return text
