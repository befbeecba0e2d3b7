"""The numbers that a text states, in the forms in which people write them, with their units.

Digits in the notations of several countries ("1,234.5", "3,14", "1 234", "1.234,5"), words ("one hundred and five"), fractions
("1/2", "½", "three and a half"), powers ("3e5", "3 x 10^5"), and "45 %", "$1,200", "12 km". Not for dates and clock times (times.py):
whoever reads both overwrites those first.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, replace
from itertools import pairwise

from journeyman.rewards.clauses import Claim, blank
from journeyman.rewards.units import COUNT, TEMPERATURES, UNIT_NAMES, UNIT_OF, kelvin

_MULTIPLIERS = {
    "k": 1e3,
    "thousand": 1e3,
    "million": 1e6,
    "m": 1e6,
    "mn": 1e6,
    "billion": 1e9,
    "hundred": 100.0,
    "dozen": 12.0,
    "bn": 1e9,
    "b": 1e9,
    "trillion": 1e12,
}
_GAP = "[ \u00a0\u2009\u202f'’]"
_GROUPED = rf"\d{{1,3}}(?:(?P<gap>[,.]|{_GAP})\d{{3}})(?:(?P=gap)\d{{3}})*(?:[.,]\d+)?"
_INDIAN = r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"
_PLAIN = r"\d+(?:_\d{3})+|\d+(?:[.,]\d+)?|[.]\d+"
_FRACTION = r"(?:(?P<whole>\d+)\s+)?(?P<top>\d+)\s?[/⁄]\s?(?P<bottom>[1-9]\d*)(?![\d/])"
_VULGAR = r"(?:(?P<vulgar_whole>\d+)\s?)?(?P<vulgar>[¼½¾⅐-⅞])"
_NUMBER = re.compile(
    rf"(?<![\w,:^])(?<!\d/)(?<!\w[.])(?<![^\W\d][-−])(?P<sign>(?<![\w)\]])[-+−–](?=[\d.$€£¥₹]))?(?P<currency>(?:US|CA?|AU?|R)?\$|[€£¥₹]|(?:USD|EUR|GBP|CHF|JPY|SEK|NOK|DKK|PLN|INR|CNY|CAD|AUD|BRL)\s?)?"
    rf"(?:(?P<fraction>{_FRACTION})|(?P<mixed>{_VULGAR})|(?P<number>{_INDIAN}|{_GROUPED}|{_PLAIN})"
    r"(?P<exponent>[eE][-+]?\d+|\s?[x×*]\s?10(?:\^|\*\*)[-+]?\d+|\s?[x×]\s?10[⁰¹²³⁴-⁹⁻]+)?)"
    r"(?:\s?(?P<multiplier>thousand|million|billion|trillion)\b|(?P<short>[kK]|[MB]|mn|bn)(?![\w/]))?"
    rf"(?:(?:\s|-)?(?P<unit>(?i:{UNIT_NAMES}|€|£|¥|\$))(?![\w]|-\w))?(?!\w)(?![.,:/]\d)"
)
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fourty fifty sixty seventy eighty ninety".split()
_LARGE = ("hundred", "thousand", "million", "billion", "trillion")
_WORD = "|".join(sorted((*_SMALL, *_TENS, *_LARGE), key=len, reverse=True))
_WORDS = re.compile(
    rf"(?<![\w-])(?:(?P<lead>an?\s+)(?=(?:{'|'.join(_LARGE)})\b))?"
    rf"(?P<words>(?:{_WORD})(?:(?:[\s-]+|\s*,\s*(?=(?:{_WORD})\s+hundred)|\s+and\s+)(?:{_WORD}))*)\b"
    rf"(?P<point>\s+point(?P<decimals>(?:\s+(?:{'|'.join(_SMALL[:10])}))+))?(?P<half>\s+and\s+(?:a\s+half|one\s+half|a\s+quarter|three\s+quarters))?"
    r"(?:\s+(?P<times>thousand|million|billion|trillion|dozen))?"
    r"(?![\w]|-\w)",
    re.IGNORECASE,
)
_SCALES = "|".join((*_LARGE, "dozen"))
_AND_A_PART = re.compile(rf"\b(?:{_WORD})\s+and\s+$", re.IGNORECASE)
_PARTS = {"half": 0.5, "quarter": 0.25, "quarters": 0.75, "third": 1 / 3, "thirds": 2 / 3}
_NTHS = "fourth fifth sixth seventh eighth ninth tenth".split()
# "One eighth", "three fifths", "one in eight".
_SMALL_FRACTION = re.compile(
    rf"(?<![\w-])(?P<top>{'|'.join(_SMALL[1:10])})(?:[\s-](?P<nth>{'|'.join(_NTHS)})s?|\s(?:in|out\s+of)\s(?P<bottom>{'|'.join(_SMALL[2:11])}))(?![\w-])",
    re.IGNORECASE,
)
_PART_WORDS = re.compile(
    r"(?<![\w-])(?:(?P<half>(?:a|one)[\s-]half|half(?=\s+(?:an?|of)\b))|(?P<quarter>(?:a|one)[\s-]quarter)|(?P<quarters>three[\s-]quarters)"
    r"|(?P<third>(?:a|one)[\s-]third)|(?P<thirds>two[\s-]thirds)|(?P<dozen>(?:a|one)\s+dozen)|(?P<none>none|nil|nought))"
    rf"(?:(?:\s+of)?\s+an?\s+(?:(?P<times>{_SCALES})|(?P<unit>{UNIT_NAMES})))?(?![\w-])",
    re.IGNORECASE,
)

_ZERO_MARK = re.compile(r"\bbelow\s+$", re.IGNORECASE)
# Counts without a number, read only where the text holds no other: "has no messages", "there aren't any", "one invoice", "a single one".
_LONE_COUNT = re.compile(
    r"(?:\b(?:has|have|had|are|is|were|was|contains?|holds?|got)\s+)no\s+(?!idea|data|information|answer|way|clue|access|result|such|longer|doubt|need)\w+"
    r"|(?:n['’]t|\bnot)\s+any\b|(?P<one>(?<!no )(?<!the )(?<!this )(?<!that )(?<!any )(?<!every )(?<!each )(?<!another )(?<!which )"
    r"\b(?:one|(?:a|one)\s+single)\s+(?!of\b|another|knows?|can|could|should|may|might|who|that|is|was|has|would|moment|second|or\b)[a-z]+)",
    re.IGNORECASE,
)


# Whole numbers of so many digits are exact as floats; of more than the second nobody writes one.
_LONGEST_IN_FLOATS, _MAX_DIGITS = 15, 1000


@dataclass(frozen=True, slots=True)
class NumberClaim(Claim):
    """`decimals` and `num_digits` (significant ones) are as written: they tell how far it may have been rounded.

    `other`: the second reading of a notation that is read in two ways ("1,234" is 1234, elsewhere 1.234). `unit`: dimension and factor.
    `whole`: the exact number, where floats can't tell it from its neighbours.
    """

    value: float
    decimals: int = 0
    num_digits: int = 0
    is_signed: bool = False
    other: float | None = None
    unit: tuple[str, float] | None = None
    whole: int | None = None


def numbers(text: str) -> list[NumberClaim]:
    """Numbers that stand alone (not in a word), in the order of the text.

    Example:
        >>> [claim.value for claim in numbers("one hundred and five, 3,14 or 1 234")]
        [105.0, 3.14, 1234.0]
    """
    claims = [_written_in_digits(match, text) for match in _NUMBER.finditer(_leave_out_labels(text))]
    claims += _written_in_words(blank(text, [claim.span for claim in claims]))
    claims = [_below_zero(claim, text) for claim in claims if not _ZERO_MARK.search(text[max(0, claim.start - 20) : claim.start])]
    return _with_cents(sorted(claims, key=lambda claim: claim.start), text)


def _with_cents(claims: list[NumberClaim], text: str) -> list[NumberClaim]:
    """ "Nine dollars and fifty cents" and "1 kg 500 g" are one amount."""
    for first, second in pairwise(claims):
        if (whole := _compound(first, second, text[first.end : second.start])) is not None:
            return [whole if one is first else one for one in claims if one is not second]
        cents = re.match(r"\s+cents?\b", text[second.end : second.end + 20])
        if cents and first.unit in (UNIT_OF["usd"], UNIT_OF["eur"]) and text[first.end : second.start].strip() == "and":
            value = _tidy(first.value + second.value / 100)
            amount = replace(first, end=second.end + cents.end(), value=value, decimals=2, other=None)
            return [amount if one is first else one for one in claims if one is not second]
    return claims


def _compound(first: NumberClaim, second: NumberClaim, between: str) -> NumberClaim | None:
    if (
        first.unit is None
        or second.unit is None
        or first.unit[0] == "time"
        or first.unit[0] != second.unit[0]
        or not re.fullmatch(r"\s*(?:,|and)?\s*", between)
    ):
        return None
    rest = second.value * second.unit[1] / first.unit[1]
    if first.decimals or second.is_signed or second.unit[1] >= first.unit[1] or not 0 <= rest < 1:
        return None
    return replace(first, end=second.end, value=_tidy(first.value + (-rest if first.value < 0 else rest)), decimals=2, other=None)


def lone_counts(text: str, things: frozenset[str] = frozenset()) -> list[NumberClaim]:
    """Counts told without a number ("has no messages", "one invoice"), for a text that holds no number.

    Example:
        >>> [claim.value for claim in lone_counts("There aren't any errors.")]
        [0.0]
    """
    claims = [NumberClaim(match.start(), match.end(), 1.0 if match["one"] else 0.0) for match in _LONE_COUNT.finditer(text)]
    if things:  # "There is no log" counts no errors, "I found no errors" does
        claims = [claim for claim in claims if claim.value or not re.match(r"\w+\s+no\b", text[claim.start :])]
        none = re.finditer(r"(?<!or )\bno\s+(?:\w+\s+){0,2}?(?=" + "|".join(map(re.escape, things)) + ")", text, re.IGNORECASE)
        claims += [NumberClaim(match.start(), match.end(), 0.0) for match in none]
    return sorted(claims, key=lambda claim: claim.start)


def _below_zero(claim: NumberClaim, text: str) -> NumberClaim:
    """ "12 degrees below zero" is -12."""
    is_below = (
        re.match(r"\s*(?:degrees?\s*)?(?:celsius\s*)?below\s+(?:zero|0|freezing)\b", text[claim.end : claim.end + 40], re.IGNORECASE)
        is not None
    )
    return replace(claim, value=-abs(claim.value), is_signed=True) if is_below else claim


def _leave_out_labels(text: str) -> str:
    """Without what counts items, totals and digits: "1. It is 42", "42 out of 100", "to 2 decimal places"."""

    def filler(match: re.Match[str]) -> str:
        return "\x00" * len(match[0])

    text = re.sub(r"^[ \t]*\(?\d{1,2}[.)](?=\s+\S)", filler, text, flags=re.MULTILINE)
    text = re.sub(r"\b(?:step|part|line)\s+\d+\b", filler, text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=\d)[*_`]*\s*(?:out\s+)?of\s+(?:the\s+)?\d[\d,.]*\d|(?<=\d)[*_`]*\s+out\s+of\s+\d+", filler, text)
    text = re.sub(r"(?<=\d[.,]\d)[*_`]*\s?/\s?(?:5|10|20|100)\b|(?<=\d[.,]\d\d)[*_`]*\s?/\s?(?:5|10|20|100)\b", filler, text)
    return re.sub(r"\b\d+\s+(?:decimal(?:s| places?)|digits|significant\s+\w+)\b", filler, text)


def _written_in_digits(match: re.Match[str], text: str) -> NumberClaim:
    is_minus = is_written_minus(match["sign"], text[: match.start()])
    other: float | None = None
    if match["fraction"]:
        value, decimals, digits = float(match["whole"] or 0) + float(match["top"]) / float(match["bottom"]), 0, 0
        if not match["whole"] and match["bottom"] in ("5", "10", "20", "100"):
            other = float(match["top"])  # "8/10" is a share, or 8 points
    elif match["mixed"]:
        value, decimals, digits = float(match["vulgar_whole"] or 0) + unicodedata.numeric(match["vulgar"]), 0, 0
    else:
        value, other, decimals, digits = _read_notation(match["number"])
        factor = _exponent(match["exponent"])
        value, other = value * factor, None if other is None else other * factor
        if match["exponent"]:
            decimals = 0
    digits_written = re.sub(r"\D", "", match["number"] or "")
    is_long = _LONGEST_IN_FLOATS < len(digits_written) <= _MAX_DIGITS and not decimals and not match["exponent"]
    factor = _MULTIPLIERS[(match["multiplier"] or match["short"] or "").lower()] if match["multiplier"] or match["short"] else 1.0
    sign = -1.0 if is_minus else 1.0
    unit = (match["unit"] or match["currency"] or "").strip().lower()
    return NumberClaim(
        match.start(),
        match.end(),
        value=_tidy(sign * value * factor),
        decimals=decimals,
        num_digits=digits,
        is_signed=is_minus or match["sign"] is not None,
        other=None if other is None else sign * other * factor,
        unit=UNIT_OF.get(unit),
        whole=int(sign) * int(digits_written) if is_long and factor == 1.0 else None,
    )


def number_claim(value: float) -> NumberClaim:
    """A number as a claim that stands nowhere."""
    is_long = isinstance(value, int) and len(str(abs(value))) > _LONGEST_IN_FLOATS
    return NumberClaim(0, 0, float(str(value)), whole=int(value) if is_long else None)  # of its text: infinite where it is too large


def _read_notation(written: str) -> tuple[float, float | None, int, int]:
    """Value, second reading, decimals and significant digits of digits with separators; English notation first."""
    plain = re.sub(f"{_GAP}|_", "", written)
    marks = re.findall("[.,]", plain)
    other: float | None = None
    if len(set(marks)) == 2:
        last = marks[-1]
        plain = plain.replace("," if last == "." else ".", "").replace(last, ".")
    elif len(marks) > 1:
        plain = plain.replace(marks[0], "")
    elif marks == [","]:
        whole, part = plain.split(",")
        if len(part) == 3 and whole.lstrip("0") and len(plain) == len(written):
            plain, other = whole + part, float(f"{whole}.{part}")
        else:
            plain = f"{whole}.{part}"
    elif marks == ["."] and re.fullmatch(r"[1-9]\d{0,2}\.\d{3}", plain):
        other = float(plain.replace(".", ""))
    return float(plain), other, len(plain.partition(".")[2]), len(plain.replace(".", "").lstrip("0"))


def _exponent(written: str | None) -> float:
    if not written:
        return 1.0
    if written[0] in "eE":
        return float(f"1{written}")
    digits = re.sub(r"^\s?[x×*]\s?10(?:\^|\*\*)?", "", written)
    return float(f"1e{int(unicodedata.normalize('NFKC', digits).replace('−', '-'))}")


def _tidy(value: float) -> float:
    """1.2 * 1e6 is 1200000.0, not 1199999.9999999998."""
    return float(f"{value:.15g}") if math.isfinite(value) else value


def _written_in_words(text: str) -> list[NumberClaim]:
    claims = [_part(match) for match in _PART_WORDS.finditer(text) if not _AND_A_PART.search(text[: match.start()][-20:])]
    claims += [_small_fraction(match) for match in _SMALL_FRACTION.finditer(text)]
    text = blank(text, [claim.span for claim in claims])
    for match in _WORDS.finditer(text):
        if _is_pronoun(match, text) or re.match(r"[\s-](?:half|quarters?|thirds?)\b", text[match.end() :], re.IGNORECASE):
            continue
        value = _value_of_words(match["words"])
        if value is None:
            continue
        decimals = ""
        if match["point"]:
            decimals = "".join(str(_SMALL.index(word.lower())) for word in match["decimals"].split())
            value = float(f"{value:.0f}.{decimals}")
        if match["half"]:
            value += _PARTS[match["half"].lower().split()[-1]] if "three" not in match["half"].lower() else 0.75
        value *= _MULTIPLIERS.get((match["times"] or "").lower(), 1.0)
        is_minus = is_written_minus(None, text[: match.start()])
        rest = re.match(rf"(?:\s|-)(?P<unit>(?i:{UNIT_NAMES}))(?![\w]|-\w)", text[match.end() :])
        end = match.end() + (rest.end() if rest else 0)
        unit = UNIT_OF.get(rest["unit"].lower()) if rest else None
        digits = len(f"{value:.0f}{decimals}".lstrip("0"))
        claims.append(NumberClaim(match.start(), end, -value if is_minus else value, len(decimals), digits, is_minus, None, unit))
    return claims


def _part(match: re.Match[str]) -> NumberClaim:
    """ "A quarter", "half a million", "half a kilo", "a dozen", "none"."""
    name = next(name for name in (*_PARTS, "dozen", "none") if match[name])
    value = {"dozen": 12.0, "none": 0.0}.get(name, _PARTS.get(name, 0.0))
    value *= _MULTIPLIERS.get((match["times"] or "").lower(), 1.0)
    return NumberClaim(match.start(), match.end(), _tidy(value), unit=UNIT_OF.get((match["unit"] or "").lower()))


def _small_fraction(match: re.Match[str]) -> NumberClaim:
    bottom = _NTHS.index(match["nth"].lower()) + 4 if match["nth"] else _SMALL.index(match["bottom"].lower())
    return NumberClaim(match.start(), match.end(), _SMALL.index(match["top"].lower()) / bottom)


def _is_pronoun(match: re.Match[str], text: str) -> bool:
    """ "No one knows", "the one in Oslo"; a number at the end of a clause ("it is one.") or before a unit."""
    if match["words"].lower() != "one" or match["point"] or match["half"]:
        return False
    before, after = text[max(0, match.start() - 40) : match.start()], text[match.end() : match.end() + 40]
    if re.match(rf"[\s-](?i:{UNIT_NAMES})\b", after):
        return False
    is_last = re.match(r"\s*(?:[.,;!)*]|$)", after) is not None
    return not (
        is_last
        and re.search(r"(?:^|\b(?:is|are|was|were|equals?|makes|gives|to|of|exactly|just|only|yes|minus)\b|[=:*])[\s*]*$", before, re.I)
    )


def _value_of_words(words: str) -> float | None:
    from number_parser import parse_number  # a light part: only where words are read

    value = parse_number(re.sub(r"\s*,\s*", " ", words.lower()).replace("fourty", "forty"), language="en")
    return None if value is None else float(value)


def is_written_minus(sign: str | None, before: str) -> bool:
    """Whether a minus stands before a number, as a sign or as a word."""
    return sign in ("-", "−", "–") or re.search(r"\b(?:minus|negative)\s*$", before[-20:], re.IGNORECASE) is not None


def is_same_number(wanted: NumberClaim, stated: NumberClaim) -> bool:
    """Whether `stated`, as written, is `wanted` or a rounding of it: by value, and in another unit of the same dimension."""
    if wanted.unit == COUNT:
        wanted = replace(wanted, unit=None)
        if stated.unit == UNIT_OF["%"]:
            return False
    if wanted.unit is not None and stated.unit is not None and wanted.unit != stated.unit:
        return _is_same_quantity(wanted, stated)
    if wanted.whole is not None and stated.whole is not None:
        return wanted.whole == stated.whole
    if is_rounding(wanted.value, stated.value, stated.decimals, stated.num_digits):
        return True
    # A share is written as 45 % or as 0.45.
    units = (None if wanted.unit is None else wanted.unit[0], None if stated.unit is None else stated.unit[0])
    if units == (None, "share"):
        return is_rounding(wanted.value, stated.value / 100, stated.decimals + 2, stated.num_digits)
    return units == ("share", None) and is_rounding(wanted.value / 100, stated.value, stated.decimals, stated.num_digits)


def is_open_share(wanted: NumberClaim, stated: NumberClaim) -> bool:
    """ "0.38 %" for 0.38: right where the value is one of percent, else a hundredth of it."""
    return wanted.unit is None and stated.unit == UNIT_OF["%"] and 0 < abs(wanted.value) < 1 and wanted.value == stated.value


def is_rounding(wanted: float, stated: float, decimals: int, num_digits: int) -> bool:
    """Whether `stated` is `wanted`, or a fraction rounded to what is written: 2 significant digits with decimals, 3 without.

    Example:
        >>> is_rounding(3.14159, 3.1, 1, 2), is_rounding(3.14159, 3.0, 0, 1), is_rounding(1234, 1230.0, 0, 3)
        (True, False, False)
    """
    is_whole = not math.isfinite(wanted) or wanted == round(wanted)
    if math.isclose(wanted, stated, rel_tol=1e-12, abs_tol=1e-15):
        return not is_whole or abs(wanted - stated) < 0.5  # also of the long numbers that name things
    if is_whole or num_digits < (2 if decimals else 3):
        return False
    return abs(wanted - stated) <= 0.5 * 10.0**-decimals * (1 + 1e-9)


def _is_same_quantity(wanted: NumberClaim, stated: NumberClaim) -> bool:
    assert wanted.unit is not None
    assert stated.unit is not None
    if wanted.unit[0] in TEMPERATURES and stated.unit[0] in TEMPERATURES:
        return abs(kelvin(wanted.value, wanted.unit[0]) - kelvin(stated.value, stated.unit[0])) <= 0.5 * 10.0**-stated.decimals * (1 + 1e-9)
    if "degree" in (wanted.unit[0], stated.unit[0]):
        return {wanted.unit[0], stated.unit[0]} <= {"degree", *TEMPERATURES} and is_rounding(
            wanted.value, stated.value, stated.decimals, stated.num_digits
        )
    if wanted.unit[0] != stated.unit[0]:
        return False
    return is_rounding(_tidy(wanted.value * wanted.unit[1] / stated.unit[1]), stated.value, stated.decimals, stated.num_digits)
