"""Dates, clock times and lengths of time that a text states, in the forms in which people write and say them.

ISO forms, "22 November 2026", "the third of April", "3:05 pm", "half past two", "22/11/2026" in both readings, "9 hours", "+9.0h".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

from journeyman.rewards.clauses import Claim, blank
from journeyman.rewards.numerals import is_written_minus, numbers
from journeyman.rewards.units import UNIT_NAMES

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WEEKDAY_SHORT = {"Mon": 0, "Tue": 1, "Tues": 1, "Wed": 2, "Thu": 3, "Thur": 3, "Thurs": 3, "Fri": 4, "Sat": 5, "Sun": 6}
MONTH_SHORT = {month[:3].capitalize(): number for number, month in enumerate(MONTHS) if month != "may"} | {"Sept": 8}

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
# "seven forty-five pm", "three oh five in the afternoon": words that `digits_for_words` turns into digits.
_COUNT_WORD = "one|two|three|four|five|six|seven|eight|nine"
_SPOKEN_DIGITS = re.compile(
    rf"\b(?P<hour>{_COUNT_WORD}|ten|eleven|twelve)[\s-](?P<minute>oh[\s-](?:{_COUNT_WORD})|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen"
    rf"|nineteen|(?:twenty|thirty|forty|fifty)(?:[\s-](?:{_COUNT_WORD}))?)(?={_HALF_DAY})",
    re.IGNORECASE,
)
_HOUR_BEFORE = re.compile(r"(?<![\w:.,+-])(?P<hour>\d{1,2})\s*(?:[-–—/&]|to|and|or|till?|until|through)\s*$", re.IGNORECASE)
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
_ORDINAL = re.compile(rf"\b{_ORDINAL_WORD}\b", re.IGNORECASE)
_ORDINAL_DAY = re.compile(
    rf"\b{_ORDINAL_WORD}(?=\s+(?:of\s+)?{_MONTH_NAME}\b)|"
    + "|".join(rf"(?<=\b{month} {the}){_ORDINAL_WORD}\b" for month in MONTHS for the in ("", "the ")),
    re.IGNORECASE,
)
_YEAR = r"(?:,?\s+(?:of\s+)?(?P<year>\d{4})(?!\d|:)|,?\s+['’](?P<short>\d{2})(?!\d|:))?"
_DAY_MONTH = rf"(?<![\w:])\d{{1,2}}(?:st|nd|rd|th|\.)?(?:\s+of)?[\s-]+{_MONTH_NAME}\b{_YEAR}"
_MONTH_DAY = rf"\b{_MONTH_NAME}[\s-]+(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)?(?![\w:]){_YEAR}"
_DAY_MONTH_YEAR = rf"(?<![\w:])\d{{1,2}}-{_MONTH_NAME}-(?P<year>\d{{4}})(?![\w-])"
_WEEKDAY_NAME = r"(?P<day>mon|tue|wed|thu|fri|sat|sun)(?:day|sday|nesday|rsday|urday|s|rs|r)?\b"
_WEEKDAY_BEFORE = re.compile(rf"\b{_WEEKDAY_NAME}[.,]?\s+(?:the\s+)?$", re.IGNORECASE)
_WEEKDAY_AFTER = re.compile(rf"\s*[,(]\s*(?:a\s+)?{_WEEKDAY_NAME}", re.IGNORECASE)
_TO_DAY = r"(?:[-–—/&]|to|and|or|till?|until|through)"
_DAY_BEFORE = re.compile(rf"(?<![\w:.,])(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)?\s*{_TO_DAY}\s*(?:the\s+)?$", re.IGNORECASE)
_DAY_AFTER = re.compile(rf"\s*{_TO_DAY}\s*(?:the\s+)?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?![\w:./])(?!\s+\w)", re.IGNORECASE)
_NAMED_DATES = tuple(re.compile(pattern, re.IGNORECASE) for pattern in (_DAY_MONTH_YEAR, _DAY_MONTH, _MONTH_DAY))
_NUMBERED_DATE = re.compile(
    r"(?<![\w.-])(?<!(?<!\d)\d/)(?<!(?<!\d)\d\d/)(?P<first>\d{1,2})(?P<gap>[/.-])(?P<second>\d{1,2})(?P=gap)(?P<year>\d{4}|\d{2})(?!\w|[.-]\d)"
)


_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIGN = r"(?P<sign>[-+−])?"
_AMOUNT = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)"
_UNIT = r"(?:milliseconds?|ms|seconds?|secs?|sec|s|minutes?|mins?|min|m|hours?|hrs?|hr|h|days?|d|weeks?|w)(?![A-Za-z])"
_DURATION_PART = rf"{_AMOUNT}[\s-]?{_UNIT}"
_DURATION_PATTERN = re.compile(
    rf"(?<![\w.,:])(?<!\d/){_SIGN}(?P<parts>{_DURATION_PART}(?:(?:,?\s*(?:and\s+)?){_DURATION_PART})*)", re.IGNORECASE
)
_DURATION_PIECE = re.compile(rf"({_AMOUNT})[\s-]?({_UNIT})", re.IGNORECASE)
_AND_A_HALF = re.compile(
    rf"\b(?P<number>\d{{1,3}}|{_COUNT_WORD}|ten|twelve)\s+(?P<unit>hours|days|weeks)\s+and\s+a\s+half\b", re.IGNORECASE
)
_ONE = re.compile(r"\b(?:an|a|one)(?=\s+(?:hour|minute|second|day|week)\b)", re.IGNORECASE)
_RATE = re.compile(rf"(?:\d|[€$£¥]|\b(?:{UNIT_NAMES}|times|once|twice))\s*$", re.IGNORECASE)  # "27 euros an hour", "5 times a day"
# "+09:00", "3:30 h", "3h30": a length where a sign or the unit tells that it is no time of day.
_CLOCK_LENGTH = re.compile(
    r"(?<![\w:.,])(?:(?:UTC|GMT)\s?)?(?P<sign>[-+−])?(?P<h>\d{1,3})(?P<gap>:|\s?h\s?)(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?(?P<unit>\s?(?:hours?|hrs?|h)\b)?(?![\w:])",
    re.IGNORECASE,
)
_ISO_DURATION = re.compile(
    r"(?<!\w)(?P<sign>-)?P(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?(?!\w)"
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


def moments(text: str) -> list[MomentClaim]:
    """Dates and clock times in ISO form, in words ("22 November 2026", "3:05 pm", "noon"), and in numbers (in both readings)."""
    stated: list[MomentClaim] = []
    for finder in (_iso_moments, _numbered_dates, _named_dates, _spoken, _clocks, _hours_only, _clock_words):
        claims = list(finder(text))
        text = blank(text, [claim.span for claim in claims])
        stated += claims
    return sorted(stated, key=lambda claim: claim.start)


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
            yield from _earlier_hour(text, match.start(), match["half"])
            yield MomentClaim(match.start(), match.end(), None, (hour, minute, second), is_half_open=is_open and zone is None, zone=zone)


def _earlier_hour(text: str, start: int, half: str | None) -> Iterator[MomentClaim]:
    """The other hour of "3-4 pm", "3 or 4 pm", "15-16:00"."""
    match = _HOUR_BEFORE.search(text[max(0, start - 12) : start])
    hour = _hour_of_day(int(match["hour"]), half) if match else None
    if hour is not None:
        yield MomentClaim(start - 1, start - 1, None, (hour, 0, None))


def _hours_only(text: str) -> Iterator[MomentClaim]:
    for match in _HOUR_ONLY.finditer(text):
        hour = _hour_of_day(int(match["hour"]), match["half"])
        if hour is not None:
            yield from _earlier_hour(text, match.start(), match["half"])
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
                year = date[0] if match["year"] or match.groupdict().get("short") else None
                claims.append(MomentClaim(match.start(), match.end(), (year, *date[1:]), None))
                claims += [
                    MomentClaim(match.start() + at, match.start() + at, (year, date[1], day), None)
                    for at, day in _other_days(text, match.start(), match.end())
                ]
        yield from claims
        text = blank(text, [claim.span for claim in claims])


def _other_days(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The other ends of a range or choice of days: "27 to 28 February", "February 27-28", as place beside the date and day."""
    before, after = _DAY_BEFORE.search(text[max(0, start - 30) : start]), _DAY_AFTER.match(text[end : end + 30])
    for at, match in ((-1, before), (0, after)):
        if match is not None and 1 <= int(match["day"]) <= 31:
            yield at, int(match["day"])


def falls_on_another(claim: MomentClaim, text: str) -> bool:
    """Whether a day of the week is written beside a date with its year, and it is another one ("Monday, 28 February 2026")."""
    if claim.date is None or claim.date[0] is None or claim.other_date is not None:
        return False
    before, after = _WEEKDAY_BEFORE.search(text[max(0, claim.start - 20) : claim.start]), _WEEKDAY_AFTER.match(text[claim.end :][:20])
    try:
        falls_on = date(claim.date[0], *claim.date[1:]).weekday()
    except ValueError:
        return True
    return any(match is not None and WEEKDAY_SHORT[match["day"].capitalize()] != falls_on for match in (before, after))


def _date_in_words(written: str) -> tuple[int, int, int] | None:
    from dateutil import parser  # a light part: only where a date in words is read

    try:
        moment = parser.parse(re.sub(r"\bthe\b", " ", written, flags=re.IGNORECASE), dayfirst=True, default=datetime(2000, 1, 1))
    except (ValueError, OverflowError):
        return None
    return moment.year, moment.month, moment.day


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


def digits_for_words(text: str) -> str:
    """ "nine hours" -> "9 hours", "an hour and a half" -> "1.5 hours": for durations and clock times, whose numbers are read in digits."""
    text = re.sub(r"(?<!\d)(\d{1,9})\s?([¼½¾])", lambda match: f"{int(match[1]) + unicodedata.numeric(match[2])}", text)
    text = _SPOKEN_DIGITS.sub(lambda match: f"{_count(match['hour'])}:{_count(match['minute']):02}", text)
    for part, written in (("a\\s+half", "1.5"), ("three\\s+quarters", "1.75"), ("a\\s+quarter", "1.25")):
        text = re.sub(rf"\b(?:an?|one)\s+(hour|minute|day|week)\s+and\s+{part}\b", rf"{written} \1s", text, flags=re.IGNORECASE)
    text = re.sub(r"\bthree[\s-]quarters\s+of\s+an\s+hour\b", "0.75 hours", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:an?\s+)?quarter\s+of\s+an\s+hour\b|\ba\s+quarter\s+hour\b", "0.25 hours", text, flags=re.IGNORECASE)
    text = re.sub(r"\ba\s+(?=quarter\s+(?:past|to|before|after)\b)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\bhalf\s+an?\s+(hour|minute|day|week)\b", r"0.5 \1s", text, flags=re.IGNORECASE)
    text = _ONE.sub(lambda match: match[0] if _RATE.search(text[max(0, match.start() - 20) : match.start()]) else "1", text)
    text = _ORDINAL_DAY.sub(lambda match: f"{_ordinal(match[0])}", text)
    text = _AND_A_HALF.sub(lambda match: f"{_count(match['number'])}.5 {match['unit']}", text)
    for claim in sorted(numbers(text), key=lambda claim: -claim.start):
        written = text[claim.start : claim.end]
        if not re.search(r"\d", written) and written[:1].isalpha():
            words = re.sub(rf"[\s-](?:{UNIT_NAMES})$", "", written, flags=re.IGNORECASE)
            digits = f"{abs(claim.value):.15g}"
            text = text[: claim.start] + digits + written[len(words) :] + text[claim.end :]
    return text


def _count(words: str) -> int:
    """ "five" and "forty-five", also with the "oh" of "three oh five"."""
    return int(numbers(re.sub(r"^oh[\s-]", "", words, flags=re.IGNORECASE))[0].value)


def ordinals_as_numbers(text: str) -> str:
    """ "2nd", "second" -> "2", at the same places."""
    text = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "\x00\x00", text)
    return _ORDINAL.sub(lambda match: f"{_ordinal(match[0])}".ljust(len(match[0]), "\x00"), text)


def _ordinal(words: str) -> int:
    from number_parser import parse_ordinal  # a light part: only where words are read

    return int(parse_ordinal(words.lower().replace("-", " ")) or 0)


def durations(text: str) -> list[DurationClaim]:
    """Lengths of time: "9 hours", "+9.0h", "3 hours and 15 minutes", "PT3H15M"."""
    claims = []
    for match in _DURATION_PATTERN.finditer(text):
        pieces = [(_amount(number), _unit_seconds(unit)) for number, unit in _DURATION_PIECE.findall(match["parts"])]
        seconds = sum(number * size for number, size in pieces)
        sign = -1 if is_written_minus(match["sign"], text[: match.start()]) else 1
        amount = sign * pieces[0][0] if len(pieces) == 1 else None
        claims.append(DurationClaim(match.start(), match.end(), sign * seconds, sign < 0 or bool(match["sign"]), amount))
    for match in _ISO_DURATION.finditer(text):
        parts = {unit: float(match[unit]) for unit in ("d", "h", "m", "s") if match[unit]}
        if parts:
            seconds = sum(amount * _UNIT_SECONDS[unit] for unit, amount in parts.items())
            is_minus = match["sign"] is not None
            claims.append(DurationClaim(match.start(), match.end(), -seconds if is_minus else seconds, is_minus))
    return sorted(claims, key=lambda claim: claim.start)


def clock_lengths(text: str) -> list[DurationClaim]:
    """Lengths written like times of day: "+09:00", "3:30 h", "3h30"."""
    claims = []
    for match in _CLOCK_LENGTH.finditer(text):
        if match["sign"] or match["unit"] or match["gap"] != ":":
            seconds = int(match["h"]) * 3600.0 + int(match["m"]) * 60 + int(match["s"] or 0)
            sign = -1 if is_written_minus(match["sign"], text[: match.start()]) else 1
            claims.append(DurationClaim(match.start(), match.end(), sign * seconds, bool(match["sign"]) or sign < 0))
    return claims


def _amount(written: str) -> float:
    """ "1,234.5", and "1,5" of half the world."""
    is_decimal = re.fullmatch(r"\d+,\d{1,2}", written) is not None
    return float(written.replace(",", "." if is_decimal else ""))


def _unit_seconds(unit: str) -> float:
    unit = unit.lower()
    return _UNIT_SECONDS["ms" if unit == "ms" or unit.startswith("milli") else unit[0]]
