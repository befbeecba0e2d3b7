"""What a text states: the numbers, moments, durations, truth values and choices in it, in the order they stand there.

For comparing an answer in words with an expected value (agreement.py). Not a parser of natural language: it knows the written forms
of values and nothing of what a sentence says about them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from journeyman.rewards.clauses import Clause, clauses, has_verb, negations
from journeyman.rewards.moments import MONTH_SHORT, MONTHS, ORDINAL, ORDINAL_DAY, SPOKEN_DIGITS, WEEKDAY_SHORT, WEEKDAYS
from journeyman.rewards.numerals import Claim, is_written_minus, numbers
from journeyman.rewards.units import UNIT_NAMES

# Words of which a right answer holds one: stating another one of the same class contradicts it.
OPPOSITES = (
    ("same", "different"), ("before", "after"), ("ahead", "behind"), ("earlier", "later"), ("more", "less"), ("higher", "lower"),
    ("larger", "smaller"), ("greater", "smaller"), ("longer", "shorter"), ("first", "second"), ("equal", "unequal"),
)  # fmt: skip

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIGN = r"(?P<sign>[-+−])?"
_AMOUNT = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)"
_UNIT = r"(?:milliseconds?|ms|seconds?|secs?|sec|s|minutes?|mins?|min|m|hours?|hrs?|hr|h|days?|d|weeks?|w)(?![A-Za-z])"
_DURATION_PART = rf"{_AMOUNT}[\s-]?{_UNIT}"
_DURATION_PATTERN = re.compile(
    rf"(?<![\w.,:])(?<!\d/){_SIGN}(?P<parts>{_DURATION_PART}(?:(?:,?\s*(?:and\s+)?){_DURATION_PART})*)", re.IGNORECASE
)
_DURATION_PIECE = re.compile(rf"({_AMOUNT})[\s-]?({_UNIT})", re.IGNORECASE)
# "+09:00", "3:30 h", "3h30": a length where a sign or the unit tells that it is no time of day.
_CLOCK_LENGTH = re.compile(
    r"(?<![\w:.,])(?:(?:UTC|GMT)\s?)?(?P<sign>[-+−])?(?P<h>\d{1,3})(?P<gap>:|\s?h\s?)(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?(?P<unit>\s?(?:hours?|hrs?|h)\b)?(?![\w:])",
    re.IGNORECASE,
)
_ISO_DURATION = re.compile(
    r"(?<!\w)(?P<sign>-)?P(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?(?!\w)"
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
    "unfortunately sadly regrettably afraid sorry actually really yet still already according checked simply".split()
)


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
    text = re.sub(r"(?<!\d)(\d{1,9})\s?([¼½¾])", lambda match: f"{int(match[1]) + unicodedata.numeric(match[2])}", text)
    text = SPOKEN_DIGITS.sub(lambda match: f"{_count(match['hour'])}:{_count(match['minute']):02}", text)
    for part, written in (("a\\s+half", "1.5"), ("three\\s+quarters", "1.75"), ("a\\s+quarter", "1.25")):
        text = re.sub(rf"\b(?:an?|one)\s+(hour|minute|day|week)\s+and\s+{part}\b", rf"{written} \1s", text, flags=re.IGNORECASE)
    text = re.sub(r"\bthree[\s-]quarters\s+of\s+an\s+hour\b", "0.75 hours", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:an?\s+)?quarter\s+of\s+an\s+hour\b|\ba\s+quarter\s+hour\b", "0.25 hours", text, flags=re.IGNORECASE)
    text = re.sub(r"\ba\s+(?=quarter\s+(?:past|to|before|after)\b)", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\bhalf\s+an?\s+(hour|minute|day|week)\b", r"0.5 \1s", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:an|a|one)(?=\s+(?:hour|minute|second|day|week)\b)", "1", text, flags=re.IGNORECASE)
    text = ORDINAL_DAY.sub(lambda match: f"{_ordinal(match[0])}", text)
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
    return ORDINAL.sub(lambda match: f"{_ordinal(match[0])}".ljust(len(match[0]), "\x00"), text)


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


def clock_lengths(text: str) -> list[DurationClaim]:
    """Lengths written like times of day: "+09:00", "3:30 h", "3h30"."""
    found = []
    for match in _CLOCK_LENGTH.finditer(text):
        if match["sign"] or match["unit"] or match["gap"] != ":":
            seconds = int(match["h"]) * 3600.0 + int(match["m"]) * 60 + int(match["s"] or 0)
            sign = -1 if is_written_minus(match["sign"], text[: match.start()]) else 1
            found.append(DurationClaim(match.start(), match.end(), sign * seconds, bool(match["sign"]) or sign < 0))
    return found


def _amount(written: str) -> float:
    """ "1,234.5", and "1,5" of half the world."""
    is_decimal = re.fullmatch(r"\d+,\d{1,2}", written) is not None
    return float(written.replace(",", "." if is_decimal else ""))


def _unit_seconds(unit: str) -> float:
    unit = unit.lower()
    return _UNIT_SECONDS["ms" if unit == "ms" or unit.startswith("milli") else unit[0]]


def truths(text: str, question: str = "") -> list[WordClaim]:
    """Yes and no, also as "true", "is not", "not true", or as a sentence that says what the question asks; "I do not know" is neither.

    Example:
        >>> [claim.value for claim in truths("I do not think that it is true.")]
        ['false']
        >>> [claim.value for claim in truths("Oslo has summer time.", "Does Oslo have summer time?")]
        ['true']
    """
    found = [claim for clause in clauses(text) for claim in _truths_of(clause, question)]
    # "Yes, it has a projector, but no whiteboard": the second is about another thing; "yes, but it isn't" is not.
    firm = [claim for claim in found if not claim.is_open or re.match(r"\W*(?:$|[.!?;])", text[claim.end :])]
    return firm or [claim for clause in clauses(text) if (claim := _restates(clause, question)) is not None] or found


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
    found = []
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
        found.append(WordClaim(start, match.end(), word))
    short: dict[str, int] = WEEKDAY_SHORT if words == WEEKDAYS else MONTH_SHORT if words == MONTHS else {}
    if short:
        matches = re.finditer(rf"\b(?:{'|'.join(short)})\b", text)
        found += [WordClaim(match.start(), match.end(), words[short[match[0]]]) for match in matches]
    return sorted(found, key=lambda claim: claim.start)
