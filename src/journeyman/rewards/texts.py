"""Whether an answer states an expected text: where it stands, and whether it stands there alone or as one of a list."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from journeyman.rewards.clauses import BOUND_AFTER, Span, Stance, blank, stances

_MAX_OTHERS, _MAX_PLACES = 2, 10
_MAX_LISTED_WORDS = 6
_ITEM_WORDS = 3
_SEPARATOR = re.compile(r"\s*(?:[,;/|•·\n]|\s[–—-]\s|\band(?:/or)?\b|\bor\b|\b(?:as\s+well\s+as|plus|then)\b|&)\s*", re.IGNORECASE)
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|will|would|can|could|does|do|did|equals?|shows?|reads?|says?|means?|remains?|becomes?|says|called|named)\b"
    r"|['’](?:s|re)\b|[:=]",
    re.IGNORECASE,
)
# What may stand beside a value in a list of words and is no rival of it.
_CHOICE_BEFORE = re.compile(r"\b(?:or|xor|alternatively)\s+(?:the\s+|else\s+)?['\"“‘*`]*$", re.IGNORECASE)
_CHOICE_AFTER = re.compile(r"['\"”’*`]*[,.!;(\s]*(?<!\w)(?:or|xor|alternatively)\b(?!\s+(?:so|not)\b)", re.IGNORECASE)
_NO_ITEM = re.compile(
    r"(?:\W*(?:yes|no|ok(?:ay)?|sure|thanks?\b.*|thank\s+you.*|please|sir|madam|though|too|also|now|currently|today|tonight|indeed|actually|of\s+course|right\s+now|at\s+the\s+moment"
    r"|without\s+.*|(?:because|since|not)\s.*|as\s+\w+(?:\s+\w+)?|so|well|here|there|then|in\s+.*|at\s+.*|on\s+.*|for\s+.*|from\s+.*|with\s+.*|by\s+.*|since\s+.*|until\s+.*|according\s+.*|to\s+be\s+\w+|hi|hello|sorry"
    r"|(?:i|we|they|he|she|it|that|this|there|let|please|while|glad|happy|feel|even|despite|thanks)(?:['’]\w+)?\s+.*|not\s+.*|which\s+.*|who\s+.*|where\s+.*|but\s+.*|because\s+.*|hope\s+.*|done|finally|exactly|precisely|however|therefore|thus|hence|you\s+.*)\W*)?",
    re.IGNORECASE,
)
# "12 m/s, NW": a measure is no rival of a text.
_MEASURE = re.compile(r"\b\d[\d.,]*\s?[^\W\d_]{1,4}(?:/[a-z]{1,2})?\b")
_MOVED = re.compile(r"\b(?:moved|changed|went|switched|passed|advanced|updated|upgraded|promoted)\s+(?:\w+\s+)?from\s+$", re.IGNORECASE)
# "5.0.0 has not been installed", "Sara did not approve it"; but "closed isn't ruled out".
_NEGATED_AFTER = re.compile(
    r"\s+(?:is|are|was|were|has|have|had|does|do|did|will|would|can|could)(?:\s+not|n['’]t)\b(?!\s+(?:\w+\s+)?(?:only|just|merely|excluded|ruled|wrong|false"
    r"|impossible|unlikely|incorrect|out|yet)\b)",
    re.IGNORECASE,
)
_FORMER = re.compile(r"\b(?:was|were|used\s+to\s+be|formerly|previously|once)\s+(?:the\s+|an?\s+)?$", re.IGNORECASE)
# "Lyon, France": the country beside a place is no rival of it.
_COUNTRIES = frozenset(
    (
        "afghanistan,albania,algeria,andorra,angola,argentina,armenia,australia,austria,azerbaijan,bahrain,bangladesh,belarus,belgium,"
        "belize,benin,bhutan,bolivia,botswana,brazil,brunei,bulgaria,burundi,cambodia,cameroon,canada,chad,chile,china,colombia,congo,"
        "costa rica,croatia,cuba,cyprus,czechia,czech republic,denmark,djibouti,ecuador,egypt,el salvador,england,eritrea,estonia,"
        "eswatini,ethiopia,fiji,finland,france,gabon,gambia,georgia,germany,ghana,greece,guatemala,guinea,guyana,haiti,honduras,"
        "hungary,iceland,india,indonesia,iran,iraq,ireland,israel,italy,ivory coast,jamaica,japan,jordan,kazakhstan,kenya,kosovo,"
        "kuwait,kyrgyzstan,laos,latvia,lebanon,lesotho,liberia,libya,liechtenstein,lithuania,luxembourg,madagascar,malawi,malaysia,"
        "maldives,mali,malta,mauritania,mauritius,mexico,moldova,monaco,mongolia,montenegro,morocco,mozambique,myanmar,namibia,nepal,"
        "netherlands,new zealand,nicaragua,niger,nigeria,north korea,north macedonia,northern ireland,norway,oman,pakistan,panama,"
        "papua new guinea,paraguay,peru,philippines,poland,portugal,qatar,romania,russia,rwanda,saudi arabia,scotland,senegal,serbia,"
        "sierra leone,singapore,slovakia,slovenia,somalia,south africa,south korea,spain,sri lanka,sudan,suriname,sweden,switzerland,"
        "syria,taiwan,tajikistan,tanzania,thailand,togo,tunisia,turkey,turkmenistan,uganda,uk,ukraine,united arab emirates,"
        "united kingdom,united states,uruguay,us,usa,uzbekistan,venezuela,vietnam,wales,yemen,zambia,zimbabwe"
    ).split(",")
)
_FUNCTION_WORDS = frozenset("a am an and are as at be by do for go he i if in is it me my no not of on or so the to up us we".split())


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether one expected value is stated. `states_kind`: the answer claims some value of that kind, right or wrong.

    `is_undecidable`: what the answer says can be read as the value and as another; it does not count as right.
    """

    is_right: bool
    states_kind: bool
    reason: str
    is_undecidable: bool = False


def compare_text(expected: str, answer: str, question: str, others: Sequence[str], pool: Sequence[str]) -> Agreement:
    """Whether `answer` states the text `expected`, and no other member of its `pool`. `others`: see `agreement.compare`."""
    places = find_texts(expected, answer)
    if len(places) > _MAX_PLACES:
        return Agreement(False, True, f"repeats the value {len(places)} times")
    if not places:
        return Agreement(False, bool(re.search(r"[^\W_]", answer)), "the value does not occur")
    views = stances(answer, places, question, is_text=True)
    if Stance.DENIED in views:
        return Agreement(False, True, "the value is denied")
    rest = blank(answer, places)
    rival = next((other for other in pool if _is_rival(other, expected, rest, places, question)), None)
    if rival is not None:
        return Agreement(False, True, f"names {rival!r} too")
    listed = [other for other in dict.fromkeys(others) if other != expected and find_texts(other, rest)]
    if len(listed) > _MAX_OTHERS:
        return Agreement(False, True, f"lists {len(listed)} other values of the result")
    beside = _company(expected, answer, question, others, places)
    if beside is not None:
        return beside
    if Stance.STATED not in views:
        return Agreement(False, True, "the value is named and not stated", is_undecidable=True)
    return Agreement(True, True, "states the value")


def _company(expected: str, answer: str, question: str, others: Sequence[str], places: Sequence[Span]) -> Agreement | None:
    """What stands beside the value as a rival of it, in its pool or not; None when it stands alone."""
    is_choice = any(_CHOICE_BEFORE.search(answer[: place[0]]) or _CHOICE_AFTER.match(answer[place[1] :]) for place in places)
    if is_choice and not any(BOUND_AFTER.match(answer[end:]) for _, end in places):
        return Agreement(False, True, "offers alternatives")
    if _is_heap(expected, answer, question, others):
        return Agreement(False, True, "stands among words that make no sentence", is_undecidable=True)
    beside = [item for place in places for item in _neighbours(expected, answer, place)]
    neighbours = [item for item in beside if not _is_known(item, question, others, expected)]
    if any(is_joined for _, is_joined in neighbours) or len(neighbours) > 1:
        return Agreement(False, True, "stands in a list of alternatives")
    if neighbours:
        return Agreement(False, True, f"stands beside {neighbours[0][0]!r}, which may be another value", is_undecidable=True)
    return None


def _is_heap(expected: str, answer: str, question: str, others: Sequence[str]) -> bool:
    """ "Oslo Bergen Rome", "1. Oslo 2. Bergen": names beside the value in an answer without a verb."""
    answer = re.sub(r"\b(?:not|rather\s+than|instead\s+of)\s+[^,.;]+", " ", answer, flags=re.IGNORECASE)
    known = " ".join((expected, question, *others)).casefold()
    words = [
        word for word in re.findall(r"[^\W\d_]{2,}", answer) if word.casefold() not in known and word.casefold() not in _FUNCTION_WORDS
    ]
    words = [word for word in words if not word.isupper() and word.casefold() not in _COUNTRIES]
    return (
        bool(words)
        and not _VERB.search(answer)
        and all(word[0].isupper() for word in words)
        and not re.search(r",\s+[A-Z]\w+\W*$|^\W*[A-Z]\w+[,:!]", answer)
    )


def _is_rival(other: str, expected: str, rest: str, places: Sequence[Span], question: str) -> bool:
    """Whether another member of the pool is named as an answer: not denied, and not just a word of the question."""
    if other.casefold().strip() in ("", expected.casefold().strip()):
        return False
    where = [place for place in find_texts(other, rest) if other.casefold() not in _FUNCTION_WORDS or rest[slice(*place)] == other]
    if other in _FUNCTION_WORDS or not where:
        return False
    where = [place for place in where if not (_is_left_behind(place, rest, places) or _NEGATED_AFTER.match(rest, place[1]))]
    if find_texts(other, question):
        where = [place for place in where if any(_SEPARATOR.fullmatch(_between(rest, place, own)) for own in places)]
    return any(stance is not Stance.DENIED for stance in stances(rest, where, question, is_text=True))


def _is_left_behind(place: Span, rest: str, places: Sequence[Span]) -> bool:
    """Whether the value came after a rival: "it moved from submitted to approved", "it was submitted, but now it is approved"."""
    before = rest[max(0, place[0] - 40) : place[0]]
    link = r"\s+to\s+" if _MOVED.search(before) else r"[^.!?]*\bnow\b[^.!?]*" if _FORMER.search(before) else None
    return link is not None and any(place[1] < own[0] and re.fullmatch(link, _between(rest, place, own)) for own in places)


def _between(text: str, one: Span, other: Span) -> str:
    first, second = sorted((one, other))
    return text[first[1] : second[0]]


def _is_known(item: tuple[str, bool], question: str, others: Sequence[str], expected: str) -> bool:
    """What the question names, the country of a place, or another field of the result (a country beside its city), is no alternative."""
    text, is_choice = item
    return not is_choice and (
        (text.casefold().removeprefix("the ") in _COUNTRIES and expected.casefold() not in _COUNTRIES)
        or bool(find_texts(text, question))
        or any(find_texts(text, other) or find_texts(other, text) for other in others)
    )


def _neighbours(expected: str, answer: str, place: Span) -> list[tuple[str, bool]]:
    """The short items that stand in a list with the value, and whether an "or" joins them."""
    if len(expected.split()) > _MAX_LISTED_WORDS or _SEPARATOR.search(expected):
        return []
    start = max((answer.rfind(mark, 0, place[0]) + len(mark) for mark in (". ", "! ", "? ", "(")), default=0)
    start = max(0, start if start > 1 else 0)
    ends = [stop for mark in (". ", "! ", "? ", ")") if (stop := answer.find(mark, place[1])) >= 0]
    left, right = answer[start : place[0]], answer[place[1] : min(ends, default=len(answer))]
    return [*_items_before(_MEASURE.sub(" ", left)), *_items_after(_MEASURE.sub(" ", right))]


def _is_choice(joint: str) -> bool:
    return joint.strip() in ("/", "|") or "or" in joint.lower().split()


def _items_after(text: str) -> list[tuple[str, bool]]:
    """Items that follow the value at once; the first that is a clause of its own ends the list."""
    items: list[tuple[str, bool]] = []
    place = _SEPARATOR.match(text)
    while place is not None and not BOUND_AFTER.match(text):
        following = _SEPARATOR.search(text, place.end())
        item = text[place.end() : following.start() if following else len(text)]
        if not item.strip(" .!?'\"*`"):
            if following is None:
                break
            place = following
            continue
        if _VERB.search(item) or _NO_ITEM.fullmatch(item) or len(item.split()) > _ITEM_WORDS:
            break
        items.append((item.strip(" .!?'\"*`"), _is_choice(place[0])))
        place = following
    return items


def _items_before(text: str) -> list[tuple[str, bool]]:
    items: list[tuple[str, bool]] = []
    text = re.split(r"\bbut\b", text)[-1]
    parts, joints = _split(text)
    if not joints or (parts[-1].strip(" '\"*`") and not re.fullmatch(r"[\s'\"*`]*(?:the|an?|its?)?[\s'\"*`]*", parts[-1], re.IGNORECASE)):
        return []
    for part, joint in zip(reversed(parts[:-1]), reversed(joints), strict=True):
        verbs = list(_VERB.finditer(part))
        if _NO_ITEM.fullmatch(part):
            break
        item = part[verbs[-1].end() :] if verbs else part
        if _NO_ITEM.fullmatch(item) or len(item.split()) > _ITEM_WORDS:
            break
        if item.strip(" .!?'\"*`"):
            items.append((item.strip(" .!?'\"*`"), _is_choice(joint)))
        if verbs:
            break
    return items


def _split(text: str) -> tuple[list[str], list[str]]:
    parts, joints, place = [], [], 0
    for match in _SEPARATOR.finditer(text):
        parts.append(text[place : match.start()])
        joints.append(match[0])
        place = match.end()
    return [*parts, text[place:]], joints


def find_texts(value: str, text: str) -> list[Span]:
    """Where `text` holds `value` as whole words. Case and the punctuation between words do not matter, except that a
    single letter must have the same case and a value with other signs in it (`C++`) must stand there literally."""
    value = value.strip()
    if not value:
        return []
    if re.fullmatch(r"[vV]\d+(?:\.\d+)+", value):
        value = value[1:]  # "v3.12.4" is version 3.12.4
    words = re.findall(r"[^\W_]+", value)
    # Part of a longer address or name is another one: "a@example.org.uk", "eu/web-1".
    is_name = re.search(r"\w[./@_\\-]\w", value) is not None
    alone = (r"(?<!\w[./@_\\-])", r"(?![./@_\\-]\w)") if is_name else ("", "")
    if len(value) == 1 or not words or re.search(r"[^\w\s/.,:;!?'\"()’-]", value):
        pattern, flags = rf"(?<!\w){alone[0]}{re.escape(value)}(?![\w+#]){alone[1]}", 0 if len(value) == 1 else re.IGNORECASE
    else:
        before = r"(?<![^\W_])(?<!\bnon-)(?<!\bun-)(?<!\bpre-)(?<!\bsemi-)(?<!\bex-)(?<!\bhalf[- ])"
        before += alone[0] + (r"(?<!\d[.,:/-])v?" if words[0][0].isdigit() else "")
        after = r"(?![^\W_]|-(?:like|ish|ended|esque|free|based)\b|-\d)" + alone[1]
        after += r"(?![.,:/-]\d|-\w)" if words[-1][-1].isdigit() else ""
        pattern, flags = before + r"[\W_]+(?:(?:the|an?)\s+)?".join(map(re.escape, words)) + after, re.IGNORECASE
    if len(words) == 2 and value == " ".join(words) and value.replace(" ", "").isalpha():
        pattern += rf"|(?<![^\W_]){words[1]},\s*{words[0]}(?![^\W_])"  # "Raman, Priya"
    return [match.span() for match in re.finditer(pattern, text, flags)]
