"""What a text states: the numbers, moments, durations, truth values and choices in it, in the order they stand there.

For comparing an answer in words with an expected value (agreement.py). Not a parser of natural language: it knows the written forms
of values and nothing of what a sentence says about them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from journeyman.rewards.clauses import Clause, clauses, has_verb, negations
from journeyman.rewards.numerals import UNIT_NAMES, Claim, is_written_minus, numbers

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
_MONTH_SHORT = {month[:3].capitalize(): number for number, month in enumerate(MONTHS) if month != "may"} | {"Sept": 8}
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIGN = r"(?P<sign>[-+−])?"
_AMOUNT = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)"
_UNIT = r"(?:milliseconds?|ms|seconds?|secs?|sec|s|minutes?|mins?|min|m|hours?|hrs?|hr|h|days?|d|weeks?|w)(?![A-Za-z])"
_DURATION_PART = rf"{_AMOUNT}[\s-]?{_UNIT}"
_DURATION_PATTERN = re.compile(
    rf"(?<![\w.,:])(?<!\d/){_SIGN}(?P<parts>{_DURATION_PART}(?:(?:,?\s*(?:and\s+)?){_DURATION_PART})*)", re.IGNORECASE
)
_DURATION_PIECE = re.compile(rf"({_AMOUNT})[\s-]?({_UNIT})", re.IGNORECASE)
_ISO_DURATION = re.compile(
    r"(?<!\w)(?P<sign>-)?P(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?(?!\w)"
)
_HALF_DAY = (
    r"(?:\s*(?P<half>[ap]\s?m\b|[ap]\.\s?m\b(?:\.(?!\s+[A-Z]|\s*$))?|(?:in\s+the\s+)(?:early\s+|late\s+)?(?:morning|afternoon|evening)\b|at\s+night\b"
    r"|this\s+(?:morning|afternoon|evening)\b|tonight\b))"
)
_ZONE = r"(?:\s?\(?(?P<zone>Z(?!\w)|(?:UTC|GMT)(?:\s?[-+−]\d{1,2}(?::?\d{2})?)?(?![\w:])|[-+−]\d{2}:?\d{2}(?![\w:]))\)?)"
# A minus after a bare clock time is a dash: "15:05-16:05".
_ZONE_AFTER_CLOCK = _ZONE.replace(r"|[-+−]\d{2}:?\d{2}(?![\w:])", r"|\+\d{2}:?\d{2}(?![\w:])")
_ISO_MOMENT = re.compile(
    r"(?<![\w-])(?P<year>\d{4})(?P<gap>[-/.]?)(?P<month>\d{2})(?P=gap)(?P<day>\d{2})"
    rf"(?:(?:[T ]|,? at )(?P<hour>\d{{2}}):?(?P<minute>\d{{2}})(?::?(?P<second>\d{{2}})(?:[.,]\d+)?)?{_ZONE}?)?(?![\w-])(?![.,:]\d)"
)
_CLOCK = re.compile(
    rf"(?<![\w:.+])(?<![A-Za-z][−-])(?P<hour>\d{{1,2}})(?P<gap>[:h.])(?P<minute>\d{{2}})(?::(?P<second>\d{{2}})(?:\.\d+)?)?{_HALF_DAY}?(?P<uhr>\s?uhr\b|\s?h\b)?"
    rf"{_ZONE_AFTER_CLOCK}?(?![\w:]|\.\d)",
    re.IGNORECASE,
)
_HOUR_ONLY = re.compile(
    rf"(?<![\w:.+])(?<![A-Za-z][−-])(?P<hour>\d{{1,2}})(?:\s?o['’]?\s?clock)?{_HALF_DAY}{_ZONE}?(?![\w:])", re.IGNORECASE
)
_CLOCK_WORD = re.compile(r"\b(noon|midday|midnight)\b", re.IGNORECASE)
# "half past two", "ten to three", "3 o'clock": the half of the day is open unless it is told.
_SPOKEN = re.compile(
    rf"\b(?:(?P<minutes>half|(?:a\s+)?quarter|\d{{1,2}}(?:\s+minutes)?)\s+(?P<side>past|to|before|after)\s+(?P<hour>\d{{1,2}})(?:\s+o['’]?\s?clock)?"
    rf"|(?P<full>\d{{1,2}})\s+o['’]?\s?clock){_HALF_DAY}?(?![\w:])",
    re.IGNORECASE,
)
_MONTH_NAME = r"(?:" + "|".join(f"{month[:3]}(?:{month[3:]})?" for month in MONTHS) + r"|sept)\.?"
_ORDINAL_WORD = (
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|thirteenth|fourteenth|fifteenth|sixteenth|seventeenth"
    r"|eighteenth|nineteenth|twentieth|thirtieth|(?:twenty|thirty)[-\s](?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth))"
)
_ORDINAL_DAY = re.compile(
    rf"\b{_ORDINAL_WORD}(?=\s+(?:of\s+)?{_MONTH_NAME}\b)|" + "|".join(rf"(?<=\b{month} ){_ORDINAL_WORD}\b" for month in MONTHS),
    re.IGNORECASE,
)
_YEAR = r"(?:,?\s+(?:of\s+)?(?P<year>\d{4})(?!\d|:)|,?\s+['’](?P<short>\d{2})(?!\d|:))?"
_DAY_MONTH = rf"(?<![\w:])\d{{1,2}}(?:st|nd|rd|th|\.)?(?:\s+of)?[\s-]+{_MONTH_NAME}\b{_YEAR}"
_MONTH_DAY = rf"\b{_MONTH_NAME}[\s-]+(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?(?![\w:]){_YEAR}"
_DAY_MONTH_YEAR = rf"(?<![\w:])\d{{1,2}}-{_MONTH_NAME}-(?P<year>\d{{4}})(?![\w-])"
_NAMED_DATES = tuple(re.compile(pattern, re.IGNORECASE) for pattern in (_DAY_MONTH_YEAR, _DAY_MONTH, _MONTH_DAY))
_NUMBERED_DATE = re.compile(r"(?<![\w.-])(?P<first>\d{1,2})(?P<gap>[/.-])(?P<second>\d{1,2})(?P=gap)(?P<year>\d{4}|\d{2})(?!\w|[.-]\d)")
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
_NOTHING_SAID = re.compile(r"\s+(?:doubt|problem|worries|question|need)\b", re.IGNORECASE)
_EMPHATIC = ("certainly", "definitely", "absolutely", "indeed")
_STOP_WORDS = frozenset(
    "never not isn doesn aren wasn don cannot think believe say any anymore longer there it's the and for are was does did has have had "
    "will would can could what which when where that this its currently now right".split()
)


@dataclass(frozen=True, slots=True)
class MomentClaim(Claim):
    """A date (year may be missing), a clock time (seconds may be missing), or both.

    `other_date`: the second reading of "03/04/2026". `is_half_open`: morning or afternoon is not told ("half past two", "3:05").
    `zone`: minutes ahead of UTC, where written. `is_spoken`: a form that is said of morning and afternoon alike ("half past two").
    """

    date: tuple[int | None, int, int] | None
    clock: tuple[int, int, int | None] | None
    other_date: tuple[int | None, int, int] | None = None
    is_half_open: bool = False
    zone: int | None = None
    is_spoken: bool = False


@dataclass(frozen=True, slots=True)
class DurationClaim(Claim):
    """`seconds` is negative only with a written minus; `is_signed` when a sign was written; `amount`: the number of a single unit."""

    seconds: float
    is_signed: bool
    amount: float | None = None


@dataclass(frozen=True, slots=True)
class WordClaim(Claim):
    """A truth value ("true", "false") or a word of a class of choices. `is_open`: said of something that the question does not name."""

    value: str
    is_open: bool = False


def digits_for_words(text: str) -> str:
    """ "nine hours" -> "9 hours", "an hour and a half" -> "1.5 hours": for durations and clock times, whose numbers are read in digits."""
    text = re.sub(r"\ban?\s+(hour|minute|day|week)\s+and\s+a\s+half\b", r"1.5 \1s", text, flags=re.IGNORECASE)
    text = re.sub(r"\bhalf\s+an?\s+(hour|minute|day|week)\b", r"0.5 \1s", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:an|a|one)(?=\s+(?:hour|minute|second|day|week)\b)", "1", text, flags=re.IGNORECASE)
    text = _ORDINAL_DAY.sub(lambda match: f"{_ordinal(match[0])}", text)
    for claim in sorted(numbers(text), key=lambda claim: -claim.start):
        written = text[claim.start : claim.end]
        if not re.search(r"\d", written) and written[:1].isalpha():
            words = re.sub(rf"[\s-](?:{UNIT_NAMES})$", "", written, flags=re.IGNORECASE)
            digits = f"{abs(claim.value):.15g}"
            text = text[: claim.start] + digits + written[len(words) :] + text[claim.end :]
    return text


def _ordinal(words: str) -> int:
    from number_parser import parse_ordinal  # a light part: only where words are read

    return int(parse_ordinal(words.lower().replace("-", " ")) or 0)


def durations(text: str) -> list[DurationClaim]:
    """Lengths of time: "9 hours", "+9.0h", "3 hours and 15 minutes", "PT3H15M"."""
    found = []
    for match in _DURATION_PATTERN.finditer(text):
        pieces = [(_amount(number), _unit_seconds(unit)) for number, unit in _DURATION_PIECE.findall(match["parts"])]
        seconds = sum(number * size for number, size in pieces)
        sign = -1 if is_written_minus(match["sign"], text[: match.start()]) else 1
        amount = sign * pieces[0][0] if len(pieces) == 1 else None
        found.append(DurationClaim(match.start(), match.end(), sign * seconds, sign < 0 or bool(match["sign"]), amount))
    for match in _ISO_DURATION.finditer(text):
        parts = {unit: float(match[unit]) for unit in ("d", "h", "m", "s") if match[unit]}
        if parts:
            seconds = sum(amount * _UNIT_SECONDS[unit] for unit, amount in parts.items())
            is_minus = match["sign"] is not None
            found.append(DurationClaim(match.start(), match.end(), -seconds if is_minus else seconds, is_minus))
    return sorted(found, key=lambda claim: claim.start)


def _amount(written: str) -> float:
    """ "1,234.5", and "1,5" of half the world."""
    is_decimal = re.fullmatch(r"\d+,\d{1,2}", written) is not None
    return float(written.replace(",", "." if is_decimal else ""))


def _unit_seconds(unit: str) -> float:
    unit = unit.lower()
    return _UNIT_SECONDS["ms" if unit == "ms" or unit.startswith("milli") else unit[0]]


def moments(text: str) -> list[MomentClaim]:
    """Dates and clock times in ISO form, in words ("22 November 2026", "3:05 pm", "noon"), and in numbers (in both readings)."""
    found: list[MomentClaim] = []
    for finder in (_iso_moments, _numbered_dates, _named_dates, _spoken, _clocks, _hours_only, _clock_words):
        claims = list(finder(text))
        text = blank(text, claims)
        found += claims
    return sorted(found, key=lambda claim: claim.start)


def _iso_moments(text: str) -> Iterator[MomentClaim]:
    for match in _ISO_MOMENT.finditer(text):
        month, day = int(match["month"]), int(match["day"])
        if not (1 <= month <= 12 and 1 <= day <= 31) or (not match["gap"] and not match["hour"]):
            continue  # eight digits alone are a number
        clock = None
        if match["hour"]:
            clock = (int(match["hour"]), int(match["minute"]), int(match["second"]) if match["second"] else None)
        yield MomentClaim(match.start(), match.end(), (int(match["year"]), month, day), clock, zone=_zone_minutes(match["zone"]))


def _zone_minutes(zone: str | None) -> int | None:
    if zone is None:
        return None
    match = re.search(r"(?P<sign>[-+−])(?P<hours>\d{1,2}):?(?P<minutes>\d{2})?$", zone)
    if match is None:
        return 0
    minutes = int(match["hours"]) * 60 + int(match["minutes"] or 0)
    return minutes if match["sign"] == "+" else -minutes


def _hour_of_day(hour: int, half: str | None) -> int | None:
    if half is None:
        return hour if hour < 24 else None
    is_late = re.match(r"p|.*(?:afternoon|evening)|tonight", half, re.IGNORECASE) is not None
    if half.lower().startswith("at"):
        is_late = hour >= 6 and hour != 12
    if not 1 <= hour <= 12:
        # "14:30 pm" is written often enough; it can only mean 14:30.
        return hour if 12 < hour < 24 and is_late else None
    return hour % 12 + (12 if is_late else 0)


def _clocks(text: str) -> Iterator[MomentClaim]:
    for match in _CLOCK.finditer(text):
        is_clock = match["half"] or (match["uhr"] or "").strip().lower() == "uhr"
        if match["gap"] == "." and not is_clock:
            continue  # "3.05" is a number, "3.25h" a duration
        hour, minute = _hour_of_day(int(match["hour"]), match["half"]), int(match["minute"])
        if hour is not None and minute < 60:
            second = int(match["second"]) if match["second"] else None
            is_open = match["half"] is None and match["uhr"] is None and match["gap"] == ":" and 1 <= hour <= 12 and match["hour"][0] != "0"
            zone = _zone_minutes(match["zone"])
            yield MomentClaim(match.start(), match.end(), None, (hour, minute, second), is_half_open=is_open and zone is None, zone=zone)


def _hours_only(text: str) -> Iterator[MomentClaim]:
    for match in _HOUR_ONLY.finditer(text):
        hour = _hour_of_day(int(match["hour"]), match["half"])
        if hour is not None:
            yield MomentClaim(match.start(), match.end(), None, (hour, 0, None), zone=_zone_minutes(match["zone"]))


def _spoken(text: str) -> Iterator[MomentClaim]:
    for match in _SPOKEN.finditer(text):
        hour, minutes = int(match["hour"] or match["full"]), 0
        if match["minutes"]:
            word = match["minutes"].lower()
            minutes = 30 if word == "half" else 15 if word.endswith("quarter") else int(re.match(r"\d+", word)[0])  # type: ignore[index]
        day_hour = _hour_of_day(hour, match["half"])
        if day_hour is None or minutes > 59:
            continue
        total = day_hour * 60 + (-minutes if (match["side"] or "").lower() in ("to", "before") else minutes)
        is_open = match["half"] is None and hour <= 12
        yield MomentClaim(match.start(), match.end(), None, (total // 60 % 24, total % 60, None), is_half_open=is_open, is_spoken=is_open)


def _clock_words(text: str) -> Iterator[MomentClaim]:
    for match in _CLOCK_WORD.finditer(text):
        yield MomentClaim(match.start(), match.end(), None, (0 if match[0].lower() == "midnight" else 12, 0, None))


def _named_dates(text: str) -> Iterator[MomentClaim]:
    for pattern in _NAMED_DATES:
        claims = []
        for match in pattern.finditer(text):
            date = _date_in_words(match[0])
            if date is not None:
                has_year = bool(match["year"] or match.groupdict().get("short"))
                claims.append(MomentClaim(match.start(), match.end(), (date[0] if has_year else None, *date[1:]), None))
        yield from claims
        text = blank(text, claims)


def _date_in_words(written: str) -> tuple[int, int, int] | None:
    from dateutil import parser  # a light part: only where a date in words is read

    try:
        found = parser.parse(re.sub(r"\bthe\b", " ", written, flags=re.IGNORECASE), dayfirst=True, default=datetime(2000, 1, 1))
    except (ValueError, OverflowError):
        return None
    return found.year, found.month, found.day


def _numbered_dates(text: str) -> Iterator[MomentClaim]:
    """ "22/11/2026": the day or the month first; with dots the day always is."""
    for match in _NUMBERED_DATE.finditer(text):
        first, second = int(match["first"]), int(match["second"])
        year = int(match["year"]) + (2000 if len(match["year"]) == 2 else 0)
        orders = [(second, first)] if match["gap"] == "." else [(second, first), (first, second)]
        dates = [(year, month, day) for month, day in orders if 1 <= month <= 12 and 1 <= day <= 31]
        if dates:
            other = dates[-1] if dates[-1] != dates[0] else None
            yield MomentClaim(match.start(), match.end(), dates[0], None, other_date=other)


def truths(text: str, question: str = "") -> list[WordClaim]:
    """Yes and no, also as "true", "is not", "not true", or as a sentence that says what the question asks; "I do not know" is neither.

    Example:
        >>> [claim.value for claim in truths("I do not think that it is true.")]
        ['false']
        >>> [claim.value for claim in truths("Oslo has summer time.", "Does Oslo have summer time?")]
        ['true']
    """
    found = [claim for clause in clauses(text) for claim in _truths_of(clause, question)]
    return found or [claim for clause in clauses(text) if (claim := _restates(clause, question)) is not None]


def _truths_of(clause: Clause, question: str) -> list[WordClaim]:
    if _UNKNOWN.search(clause.text):
        return []
    words = [match for match in _TRUTH_WORD.finditer(clause.text) if not _NOTHING_SAID.match(clause.text[match.end() :])]
    literal, meant = (_plain(negations(clause.text, is_literal=one)) for one in (True, False))
    if meant or any(match["no"] for match in words):
        words = [match for match in words if match[0].lower() not in _EMPHATIC]
    # "It is not the case that it is not": two negations are not unravelled.
    is_elsewhere = len(meant) > 1 or bool(question.strip() and _content_words(clause.text) - _asked_words(question))
    found, is_spent = [], False
    for match in words:
        is_true = match["yes"] is not None or match["true"] is not None or match["plain_true"] is not None
        if match["yes"] is None and match["no"] is None:
            is_true ^= len([one for one in literal if one.start() < match.end()]) % 2 == 1
            is_spent = True
        is_article = match["no"] is not None and re.match(r"\s+\w", clause.text[match.end() :]) is not None
        found.append(_truth(clause, match.span(), is_true, (is_article and is_elsewhere) or len(meant) > 1))
    if meant and not is_spent and not any(match["no"] for match in words):
        found.append(_truth(clause, meant[0].span(), False, is_elsewhere))
    return found


def _plain(negators: list[re.Match[str]]) -> list[re.Match[str]]:
    """Those that are not themselves words for false."""
    return [one for one in negators if not re.fullmatch(rf"no|{_FALSE_WORD}", one[0], re.IGNORECASE)]


def _truth(clause: Clause, span: tuple[int, int], is_true: bool, is_open: bool) -> WordClaim:
    return WordClaim(clause.start + span[0], clause.start + span[1], "true" if is_true else "false", is_open)


def _restates(clause: Clause, question: str) -> WordClaim | None:
    """A sentence in the words of a question that has no negation is a yes."""
    wanted, said = _asked_words(question), _content_words(clause.text)
    if len(wanted) < 2 or negations(question) or clause.is_asked or not has_verb(clause.text):
        return None
    is_said = said <= wanted and len(said) >= 2 and len(said) >= 0.5 * len(wanted)
    return WordClaim(clause.start, clause.end, "true") if is_said else None


def _asked_words(question: str) -> set[str]:
    asked = clauses(question)
    return _content_words(asked[-1].text) if asked else set()


def _content_words(text: str) -> set[str]:
    words = re.findall(r"[^\W_]+", text.casefold())
    return {word[:5] for word in words if len(word) > 2 and word not in _STOP_WORDS and not _TRUTH_WORD.fullmatch(word)}


def choice_class(value: str) -> tuple[str, ...] | None:
    """The class of words of which `value` is one, or None."""
    word = value.strip().casefold()
    return next((words for words in (WEEKDAYS, MONTHS, *OPPOSITES) if word in words), None)


def choices(text: str, words: tuple[str, ...]) -> list[WordClaim]:
    """The words of one class; "not the same" is "different" where a class has two words."""
    found = []
    more = "|differs?" if "different" in words else ""
    for match in re.finditer(rf"(?P<not>(?:\bnot|n['’]t)\s+(?:\w+\s+){{0,2}}?)?\b(?P<word>{'|'.join(words)}{more})\b", text, re.IGNORECASE):
        word = match["word"].lower()
        if words == MONTHS and word in ("may", "march") and match["word"][0].islower():
            continue
        word, start = "different" if word.startswith("differ") else word, match.start("word")
        if match["not"] and len(words) == 2:
            word, start = words[1 - words.index(word)], match.start()
        found.append(WordClaim(start, match.end(), word))
    short: dict[str, int] = _WEEKDAY_SHORT if words == WEEKDAYS else _MONTH_SHORT if words == MONTHS else {}
    if short:
        matches = re.finditer(rf"\b(?:{'|'.join(short)})\b", text)
        found += [WordClaim(match.start(), match.end(), words[short[match[0]]]) for match in matches]
    return sorted(found, key=lambda claim: claim.start)


def blank(text: str, claims: Sequence[Claim]) -> str:
    """The text with these claims overwritten by a filler, so that their digits are not read again; positions stay."""
    for claim in claims:
        text = text[: claim.start] + "\x00" * (claim.end - claim.start) + text[claim.end :]
    return text
