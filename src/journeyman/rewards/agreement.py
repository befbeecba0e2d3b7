"""Does an answer in words state the expected values? Pure functions on text; no model, no word lists of any one server.

The rules:

* One candidate a value that was asked for: the answer must state the expected values and no other of their kind. What the question
  already holds, what is denied ("42, not 17"), the operands of a calculation and totals ("42 of 100") are no candidates.
* What is denied, guessed, asked, bounded or taken back is not stated (clauses.py); a value both stated and denied is not either.
* numbers: equal by value, in any notation and unit (numerals.py). A fraction may be rounded to the precision written, if that keeps at
  least 2 significant digits after rounding to decimals, or 3 when rounded to whole numbers (3.14159 = "3.1", not "3"; 1234.56 =
  "1,235"; 12.5 is not "13"). Whole numbers are never rounded.
* truth values: yes/no, true/false, "is not", or the question said as a sentence. Both in one answer contradict each other, unless
  both are expected in that order.
* date-times: the clock time to the minute (seconds must agree where written), 24-hour or with am/pm; a date and an offset from UTC, where
  written, must agree too.
* durations: same length in any unit ("+9.0h" = "9 hours"), or the bare number in the expected unit. A written sign must agree.
* anything else: the words of the value, in order, as whole words, whatever the case and punctuation; no other member of its pool (values
  known to stand in the same place), and not one of a list.

Some answers cannot be told apart without knowing more ("3:05" for five past three in the afternoon, "1.234" for 1234, "maybe 42"): they
count as not right, and `is_undecidable` tells them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from journeyman.rewards.clauses import Claim, Stance, clauses, is_guessed, is_hedged, is_taken_back, stances
from journeyman.rewards.kinds import Kind, WordClaim, expect
from journeyman.rewards.numerals import NumberClaim, numbers
from journeyman.rewards.results import Value
from journeyman.rewards.texts import Agreement, compare_text
from journeyman.rewards.times import DurationClaim, digits_for_words
from journeyman.rewards.units import asked_things, asked_unit

_MIN_ECHO_WORDS = 5
# An answer in words names a few values; of one that never ends the first are enough to see that it lists.
_MAX_CLAIMS, _MAX_CHARS = 40, 4000
_YOU_ASKED = re.compile(r"\b(?:you\s+asked\s+\w+|your\s+question\s+was|the\s+question\s+(?:is|was))\b[^:;.?!]*[:;.?!]", re.IGNORECASE)
# "<answer>7</answer>", "<b>": marks of a form, no signs of comparison.
_TAG = re.compile(r"</?[A-Za-z][\w-]{0,20}>")
_JOINED = re.compile(r"(?:[ \t,;/&]|\band\b|\bor\b)*", re.IGNORECASE)
_ABOUT = re.compile(
    r"(?:\b(?:about|around|roughly|approximately|approx\.?|circa|some|nearly|almost|just\s+over|just\s+under)|[~≈])\s*[$€£]?$",
    re.IGNORECASE,
)
_OPERATOR = r"(?:[*x×·÷^/+−-]|plus|minus|times|divided\s+by|multiplied\s+by|over|mod|to\s+the\s+power\s+of)"
_CIRCUMSTANCE = re.compile(
    r"\b(?:in|on|for|from|within|across|at|during|since|including|per)\s+(?:(?:the|a|all|its|last|past|next|total|of)\s+){0,3}$",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"(?:\band|,|\bwith|\bplus)\s+(?:also\s+)?$", re.IGNORECASE)
# Not the same things under another name ("42 items and 43 pieces"), nor a part of them ("3 upstairs").
_OTHER_THINGS = re.compile(
    r"\s(?!(?:items|pieces|units|things|copies|ones|others|times|upstairs|downstairs|indoors|outdoors|extras|entries|records|results)\b)[a-z]{3,}s\b"
)
_FROM = re.compile(r"\b(?:from|between|until|till?)\s+$", re.IGNORECASE)
_RANGE = re.compile(r"\s*[-–—]\s*\d[^=]*$")
_OUT_OF = re.compile(r"^[*_`]*\s?/\s?(?:5|10|20|100)\b(?!\s*=)")
# "48 * 30 =", "the sum of" left out: an equation up to its result.
_EQUATION = re.compile(rf"(\d[\d.,]*\)?(?:\s*{_OPERATOR}\s*\(?\d[\d.,]*\)?)+)\s*(?:=|≈|is|equals|gives|makes)\s*[$*]*$", re.IGNORECASE)
_OPERATOR_AFTER = re.compile(rf"\s*\)?\s*(?:{_OPERATOR})\s*[\d(√]", re.IGNORECASE)
_OPERATOR_BEFORE = re.compile(rf"[\d)]\s*(?:{_OPERATOR})\s*\(?$", re.IGNORECASE)


def agrees(expected: Value, answer: str, question: str = "", pool: Sequence[str] = ()) -> bool:
    """Whether `answer` states `expected`.

    Example:
        >>> agrees("2026-11-22T15:05:00+09:00", "It is 3:05 pm in Tokyo."), agrees(9, "It is 19.")
        (True, False)
        >>> agrees("Oslo", "Definitely anything except Oslo."), agrees("open", "It is open, closed, pending.", pool=["closed"])
        (False, False)
    """
    return compare([expected], answer, question, pools=[pool])[0].is_right


def compare(
    expected: Sequence[Value], answer: str, question: str = "", others: Sequence[str] = (), pools: Sequence[Sequence[str]] = ()
) -> list[Agreement]:
    """One Agreement per expected value, in order. Values of one kind must be stated in the order given.

    Args:
        question: the task; what it already names is not counted as stated by the answer.
        others: further texts that stood beside the expected ones in the result: an answer listing more than two of them is a dump.
        pools: for each expected value the texts known to stand in its place (an enumeration, values seen): naming another one is wrong.
    """
    if is_question_echo(answer, question) and not _says_more(expected, answer, question):
        return [Agreement(False, False, "repeats the question") for _ in expected]
    answer = _table_as_lines(answer[:_MAX_CHARS])
    answer = _YOU_ASKED.sub(" ", _TAG.sub(" ", answer))
    items = [expect(value) for value in expected]
    agreements: list[Agreement | None] = [None] * len(items)
    for index, item in enumerate(items):
        if item.kind is None:
            wanted = [str(other.value) for other in items if other.kind is None]
            pool = pools[index] if index < len(pools) else ()
            agreements[index] = compare_text(str(item.value), answer, question, others, [one for one in pool if one not in wanted])
        elif agreements[index] is None:
            name = item.kind.name
            indexes = [i for i, other in enumerate(items) if other.kind is not None and other.kind.name == name]
            claims = [claim for i in indexes if (claim := items[i].claim) is not None]
            has_truth = any(other.kind is not None and other.kind.name == "truth" for other in items)
            for i, agreement in zip(indexes, _compare_claims(item.kind, claims, answer, question, has_truth), strict=True):
                agreements[i] = agreement
    return [agreement for agreement in agreements if agreement is not None]


def _table_as_lines(answer: str) -> str:
    """A table of two columns, or of one row, as lines of names and values: what stands in it is no list of alternatives."""
    lines = answer.split("\n")
    rule = next((at for at, line in enumerate(lines) if at and "|" in lines[at - 1] and "-" in line and set(line) <= set(" |:-")), None)
    if rule is None:
        return answer
    end = next((at for at in range(rule + 1, len(lines)) if "|" not in lines[at]), len(lines))
    names, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in (lines[rule - 1], *lines[rule + 1 : end])]
    if len(rows) == 1 and len(rows[0]) == len(names):
        rows = [list(pair) for pair in zip(names, rows[0], strict=True)]
    if not rows or any(len(row) != 2 for row in rows):
        return answer
    return "\n".join([*lines[: rule - 1], *(f"{name}: {cell}" for name, cell in rows), *lines[end:]])


def _says_more(expected: Sequence[Value], answer: str, question: str) -> bool:
    """Whether an answer in the question's words adds a number, or a word of an expected value."""
    new = set(words_of(answer)) - set(words_of(question))
    return any(re.search(r"\d", word) for word in new) or not new.isdisjoint(word for value in expected for word in words_of(str(value)))


def is_question_echo(answer: str, question: str) -> bool:
    """Whether the answer is mostly one run of words copied from the question."""
    said, asked = words_of(answer), words_of(question)
    if not said or len(said) < _MIN_ECHO_WORDS or not asked:
        return False
    longest = SequenceMatcher(None, said, asked, autojunk=False).find_longest_match().size
    return longest >= max(_MIN_ECHO_WORDS, 0.8 * len(said))


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers; `America/New_York` is three words."""
    return re.findall(r"[^\W_]+(?:['’.,:][^\W_]+)*", text.casefold())


@dataclass(slots=True)
class _Candidate:
    """A value that the answer puts forward, with every place where it does. `match`: its best with each expected value, by index."""

    claim: Claim
    matches: list[bool | None]
    is_stated: bool
    is_denied: bool = False

    def is_of(self, index: int) -> bool:
        return self.matches[index] is not False


def _compare_claims(kind: Kind, expected: Sequence[Claim], answer: str, question: str, has_truth: bool) -> list[Agreement]:
    answer, question = digits_for_words(answer), digits_for_words(question)
    expected = [replace(one, unit=asked_unit(question)) if isinstance(one, NumberClaim) and one.unit is None else one for one in expected]
    candidates = _candidates(kind, expected, answer, question, has_truth)
    firsts = [i for i in range(len(expected)) if i == 0 or kind.match(expected[i - 1], expected[i]) is not True]
    fault = _fault(kind, candidates, len(firsts))
    if fault is not None:
        return [Agreement(False, bool(candidates), fault) for _ in expected]
    live = [one for one in candidates if not one.is_denied]
    out: list[Agreement] = []
    for i in range(len(expected)):
        place = sum(first <= i for first in firsts) - 1
        if any(one.is_denied and one.is_of(i) for one in candidates):
            out.append(Agreement(False, True, "the value is denied"))
        elif place >= len(live):
            out.append(Agreement(False, bool(live), "states no such value"))
        else:
            out.append(_agreement_with(live[place], i, answer))
    return out


def _agreement_with(candidate: _Candidate, index: int, answer: str) -> Agreement:
    said = repr(answer[candidate.claim.start : candidate.claim.end])
    if not candidate.is_of(index):
        return Agreement(False, True, f"states {said}: another value")
    if candidate.matches[index] is None:
        return Agreement(False, True, f"states {said}, which can be read in two ways", is_undecidable=True)
    if not candidate.is_stated:
        return Agreement(False, True, f"names {said} without stating it", is_undecidable=True)
    return Agreement(True, True, f"states {said}")


def _candidates(kind: Kind, expected: Sequence[Claim], answer: str, question: str, has_truth: bool) -> list[_Candidate]:
    """What the answer puts forward, each value once where the expected ones are all different, in the order of the text."""
    stated = list(kind.read(answer, question))[:_MAX_CLAIMS]
    asked = [] if kind.ignores_question else list(kind.read(question, ""))
    views = _views(kind, answer, stated, question, has_truth)
    repeats = any(kind.match(one, other) is True for i, one in enumerate(expected) for other in expected[i + 2 :])
    candidates: list[_Candidate] = []
    for index, (claim, stance) in enumerate(zip(stated, views, strict=True)):
        if stance is Stance.STATED and _is_turned_round(claim, expected, answer, question):
            stance = Stance.OPEN
        if stance is Stance.OPEN and len(expected) > 1 and _FROM.search(answer[max(0, claim.start - 20) : claim.start]):
            stance = Stance.STATED  # "from 8:30 to 18:00", where both are asked for
        matches = [kind.match(want, claim) for want in expected]
        matches = [
            None if match is False and _is_near(claim, want, answer) else match for match, want in zip(matches, expected, strict=True)
        ]
        is_wanted = any(match is not False for match in matches)
        if (stance is Stance.DENIED and not is_wanted) or (
            isinstance(claim, NumberClaim) and _is_operand(claim, stated, answer, question, kind)
        ):
            continue
        if not is_wanted and isinstance(claim, NumberClaim) and _is_circumstance(claim, stated, expected, answer, question):
            continue
        if not is_wanted and any(kind.match(one, claim) is True for one in asked) and not _is_joined(index, stated, expected, kind, answer):
            continue
        earlier = candidates[-1:] if kind.name == "truth" or repeats else candidates
        same = next((one for one in earlier if _is_same(kind, one, claim, matches)), None)
        if same is None:
            candidates.append(_Candidate(claim, matches, stance is Stance.STATED, stance is Stance.DENIED))
        else:
            _merge(same, matches, stance)
    return _without_open_readings(candidates)


def _is_same(kind: Kind, earlier: _Candidate, claim: Claim, matches: Sequence[bool | None]) -> bool:
    """Whether a value was put forward before, in this form or in another that an expected one agrees with."""
    if kind.match(earlier.claim, claim) or kind.match(claim, earlier.claim):
        return True
    return any(one is True and other is True for one, other in zip(earlier.matches, matches, strict=True))


def _merge(candidate: _Candidate, matches: Sequence[bool | None], stance: Stance) -> None:
    """Another place that states the same: denied once is denied; stated once, in a notation with one reading, is stated."""
    candidate.is_denied = candidate.is_denied or stance is Stance.DENIED
    candidate.is_stated = candidate.is_stated or stance is Stance.STATED
    candidate.matches = [True if True in pair else None if None in pair else False for pair in zip(candidate.matches, matches, strict=True)]


def _without_open_readings(candidates: list[_Candidate]) -> list[_Candidate]:
    """ "Half past two, that is 2:30 pm": what can be read as a value that is also said outright says the same."""
    clear = [one for one in candidates if True in one.matches]
    return [one for one in candidates if True in one.matches or not (clear and None in one.matches)]


def _views(kind: Kind, answer: str, stated: Sequence[Claim], question: str, has_truth: bool) -> list[Stance]:
    if kind.name != "truth":
        return stances(answer, [claim.span for claim in stated], question, has_truth=has_truth)
    if is_taken_back(answer):
        return [Stance.DENIED] * len(stated)
    parts = clauses(answer)
    is_open = is_guessed(answer)
    hedged = [any(part.start <= claim.start < part.end and is_hedged(part) for part in parts) for claim in stated]
    elsewhere = [isinstance(claim, WordClaim) and claim.is_open for claim in stated]
    return [Stance.OPEN if is_open or any(pair) else Stance.STATED for pair in zip(hedged, elsewhere, strict=True)]


def _is_operand(claim: NumberClaim, stated: Sequence[Claim], answer: str, question: str, kind: Kind) -> bool:
    """Whether a number is part of a calculation, or a result that a later step goes on with ("17*20 = 340, 340+51 = 391")."""

    def stands_at_operator(one: Claim) -> bool:
        after = _OUT_OF.sub("", answer[one.end : one.end + 40])
        return _OPERATOR_AFTER.match(after) is not None or _OPERATOR_BEFORE.search(answer[max(0, one.start - 40) : one.start]) is not None

    if stands_at_operator(claim):
        # "30-45 minutes" is a range.
        return kind.name != "duration" or _RANGE.match(answer[claim.end :]) is None
    later = [one for one in stated if isinstance(one, NumberClaim) and one.start > claim.start]
    if answer[: claim.start].rstrip().endswith("=") and any(stands_at_operator(one) for one in later if one.value == claim.value):
        return True
    # "48 * 30 = 1440 and 48 * 2 = 96, so 48 * 32 = 1536": a step that the question does not name, before the last result.
    equation = _EQUATION.search(answer[max(0, claim.start - 80) : claim.start])
    is_step = equation is not None and not {one.value for one in numbers(equation[1])} <= {one.value for one in numbers(question)}
    return is_step and any(not stands_at_operator(one) for one in later)


def _is_circumstance(claim: NumberClaim, stated: Sequence[Claim], expected: Sequence[Claim], answer: str, question: str) -> bool:
    """ "120 seats on 2 levels", "6 bedrooms and 3 bathrooms": the number of something else, beside that of what was asked for."""
    things = asked_things(question)
    before, after = answer[max(0, claim.start - 30) : claim.start], answer[claim.end : claim.end + 40]
    if not things or not (_CIRCUMSTANCE.search(before) or (_BESIDE.search(before) and _OTHER_THINGS.match(after))):
        return False

    def counts_things(one: Claim) -> bool:
        return any(word[:5].casefold() in things for word in re.findall(r"[^\W\d_]+", answer[one.end : one.end + 40])[:2])

    values = {one.value for one in expected if isinstance(one, NumberClaim)}
    is_counted = any(isinstance(one, NumberClaim) and one.value in values and counts_things(one) for one in stated)
    return is_counted and not counts_things(claim)


def _is_turned_round(claim: Claim, expected: Sequence[Claim], answer: str, question: str) -> bool:
    """ "9 hours behind" for +9 hours: the sign depends on what is compared with what."""
    signs = [want.seconds > 0 for want in expected if isinstance(want, DurationClaim) and want.is_signed]
    if not isinstance(claim, DurationClaim) or claim.is_signed or not signs:
        return False
    word = re.match(r"[^.;!?]{0,30}?\b(behind|ahead|earlier|later|slower|faster)\b", answer[claim.end :], re.IGNORECASE)
    if word is None or word[1].lower() in question.lower():
        return False
    is_ahead = word[1].lower() in ("ahead", "later", "faster")
    return any(sign != is_ahead for sign in signs)


def _is_near(claim: Claim, expected: Claim, answer: str) -> bool:
    """ "About 1.2 million" for 1,234,567: a rounding that is told to be one."""
    if not (isinstance(claim, NumberClaim) and isinstance(expected, NumberClaim)) or not _ABOUT.search(answer[: claim.start]):
        return False
    if claim.unit is not None and expected.unit is not None and claim.unit != expected.unit:
        return claim.unit[0] == expected.unit[0] and math.isclose(
            claim.value * claim.unit[1], expected.value * expected.unit[1], rel_tol=0.05
        )
    return math.isclose(claim.value, expected.value, rel_tol=0.05)


def _is_joined(index: int, stated: Sequence[Claim], expected: Sequence[Claim], kind: Kind, answer: str) -> bool:
    """Whether a value of the question stands in one list with an expected one ("5, 7", "5 or 7")."""
    for left, right in ((index - 1, index), (index, index + 1)):
        if left < 0 or right >= len(stated):
            continue
        other = stated[left if right == index else right]
        between = answer[stated[left].end : stated[right].start]
        if _JOINED.fullmatch(between) and any(kind.match(want, other) is not False for want in expected):
            return True
    return False


def _fault(kind: Kind, candidates: Sequence[_Candidate], num_wanted: int) -> str | None:
    """Why the answer as a whole claims nothing definite, or None."""
    live = [one for one in candidates if not one.is_denied]
    others = [one for one in live if not any(match is not False for match in one.matches)]
    if others and len(live) > len(others):
        return f"states {len(others)} other values beside it"
    if len(others) > num_wanted:
        return f"states {len(others)} other values"
    if len(live) > num_wanted:
        return "contradicts itself" if kind.name == "truth" else f"states {len(live)} values"
    return None
