"""What a sentence says about a value that stands in it: states it, denies it, or leaves it open.

A negation counts for its whole clause ("I do not think it is 42", "definitely anything except Oslo"); what is guessed, asked, bounded or
taken back is not stated. Not a parser: cues in the order of the words, made so that in doubt nothing counts as stated.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import pairwise

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """A value that a text states. `start` and `end` are where, in characters of the text searched."""

    start: int
    end: int

    @property
    def span(self) -> Span:
        return self.start, self.end


class Stance(Enum):
    """What a text says about a value in it. OPEN: guessed, asked, bounded, or beside a negation that may be about something else."""

    STATED = "stated"
    DENIED = "denied"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause of a text, with where it stands. `sentence` is the span of its sentence."""

    start: int
    end: int
    text: str
    sentence: Span
    is_asked: bool = False


_QUOTE = "'\"”’`*_)\\]"
_SENTENCE_END = re.compile(rf"(?:[.!?…]+(?=[{_QUOTE}]*(?:\s|$))|\n|;|\s[–—-]+\s|—|(?<!\w)\(|\))[{_QUOTE}]*")
_CONJUNCTION = re.compile(
    r"\bbut\b(?! also)|(?<=,\s)yet\b|\b(?:however|whereas|while|although|though|because|since|therefore|thus|hence|and so)\b"
    r"|\bso\b(?=\s+(?:it|the|that|this|no|there)\b)"
    r"|\band\b(?=\s+(?:it|the|that|this|there|he|she|they|we|i|its|not)\b)|\bas\b(?=\s+(?:it|the|you)\b)|=>|→",
    re.IGNORECASE,
)
# "Anything but Oslo", "no day but Sunday": here it joins no clause.
_EXCEPTING_BUT = re.compile(r"\b(?:any|every|all|no)(?:thing|one|body|where|\s+\w+)?\s*$", re.IGNORECASE)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|will|would|can(?:not)?|could|does|do|did|equals?|makes?|gives?(?!\s+or\s+take)|comes?|stands?|shows?|reads?|says?|lies?|means?"
    r"|starts?|begins?|ends?|runs?|remains?|becomes?|happens?|used(?=\s+to\s+be))\b|['’](?:s|re)\b|n['’]t\b|=",
    re.IGNORECASE,
)
_OPENS_CLAUSE = re.compile(r"\s*(?:and\s+)?(?:not|never|nor|which|who|where|rather|instead)\b", re.IGNORECASE)
_ASIDE = re.compile(r"\s*(?:i|you|we|as|if|let\s+me|believe|trust)\b", re.IGNORECASE)
_SUBJECT = re.compile(r"(?:it|he|she|they|this|that)\b", re.IGNORECASE)
_INTERJECTION = re.compile(
    r"\W*(?:no|yes|nope|yeah|yep|well|ok|okay|sure|sorry|of course|indeed|actually|so|right|correct)\W*", re.IGNORECASE
)
# Words that look like a negation and deny nothing.
_HARMLESS = re.compile(
    r"\b(?:not|n['’]t|no|never)\s+(?:\w+\s+)?(?:wrong|false|incorrect|untrue|impossible|mistaken|in doubt)\b"
    r"|\b(?:no|without(?:\s+a)?)\s+(?:doubt|question)\b"
    r"|\bno\s+(?:problem|worries)\b|\b(?:not|n['’]t)\s+(?:only|just|merely|surprisingly|to mention)\b"
    r"|\bwithout fail\b|\bif not\b|\bor not\b"
    r"|\b(?:nothing|none|no\s?one|no\s+\w+)\s+(?:but|other\s+than|except)\b|\b(?:can|could)(?:not|n['’]t)\s+be\s+(?:anything\s+)?(?:other|else)\s+than\b"
    r"|\b(?:nowhere|nothing|nobody|no\s?one|none)\s+(?:else\s+)?(?:but|than|other\s+than)\b|\bno\s+need\b|\bnot?\s+(?:more|less|later|earlier|fewer|longer|higher|lower)\s+than\b"
    r"|\bthere\s+is\s+no\s+other\b|\bno\.\s?(?=\d)",
    re.IGNORECASE,
)
_NEGATOR = re.compile(
    r"\b(?:not|never|no|nor|neither|none|nobody|nothing|nowhere|cannot|hardly|barely|scarcely|unlikely|doubt(?:s|ed|ful)?|den(?:y|ies|ied)"
    r"|refus(?:e|es|ed)|wrong(?:ly)?|false(?:ly)?|incorrect(?:ly)?|untrue|impossible|mistaken(?:ly)?|disagrees?|rejects?|mistakes?|erroneous(?:ly)?|nonsense|(?:any|every|all)(?:thing|one|body|where|\s+\w+)?\s+but"
    r"|far\s+from|opposite|(?:stop(?:s|ped)?|ceas(?:es?|ed)|quit)(?=\s+(?:being|to\s+be)\b)|fail(?:s|ed)?\s+to\s+be|dont|doesnt|isnt|wasnt|arent|cant|wont|ain['’]?t|nicht|kein(?:e|en)?|pas|nunca)\b|n['’]t\b|≠|!=",
    re.IGNORECASE,
)
# These deny what follows them only.
_EXCEPTING = re.compile(
    r"\b(?:except(?:ing)?|exclud(?:ing|es?)|besides|other\s+than|rather\s+than|instead\s+of|as\s+opposed\s+to|apart\s+from|unlike|without|save\s+for"
    r"|contrary\s+to|rul(?:e[sd]?|ing)\s+out|leaving\s+out|not\s+counting|let\s+alone"
    r"|all\s+but|aside\s+from|opposed\s+to|different\s+(?:from|than))\b",
    re.IGNORECASE,
)
# A denial of thinking or knowing reaches to the end of its sentence, over commas.
_ATTITUDE = re.compile(
    r"(?:(?:at\s+first|first|initially|originally|earlier)\s+(?:i\s+|we\s+)?(?:thought|counted|assumed|believed|said|read|guessed)|(?:(?:i|we)\s+)(?:first|initially|originally|at\s+first)\s+(?:thought|counted|assumed|believed|said|read|guessed)|(?:not|n['’]t|never|nobody|no\s?one|hardly|dont|cannot)\s+(?:\w+\s+){0,2}?(?:think|thinks|believe|believes|know|knows|say|says|agree|claim|suppose|"
    r"expect|see|feel|confirm|the\s+case|true|correct|right)|doubt(?:s|ed)?|deny|denies|wrong|false|incorrect|untrue|mistaken|impossible|unlikely)\b",
    re.IGNORECASE,
)
_ITSELF = r"(?=\s+(?:an?|the|right|correct|true|valid|it|what|equal|be|my|your|so)\b|\s*(?:[.!,;)?]|$))"
_WRONG = (
    r"(?:wrong|false|incorrect|untrue|invalid|mistaken|impossible|out of the question|ruled out|excluded"
    r"|not (?:\w+ )?(?:true|right|correct|it))\b"
)
_DENIED_AFTER = re.compile(
    rf"[{_QUOTE}]*(?:\s*(?:hours?|minutes?|h|o['’]clock))?\s*"
    rf"(?:(?:(?:is|are|was|were|do|does|did|can|could|would|should|will)\s*(?:n['’]t|not|never)\b|isnt\b|cannot\b){_ITSELF}"
    rf"|(?:,\s*which\s+|[?!.,;]?\s*(?:no,?\s+)?(?:that|this|it|which)\s+)?(?:is|was|seems|looks|sounds)\s+(?:\w+ly\s+)?{_WRONG}"
    r"|(?:can|could|should|must|has|have)\s+(?:be|been)\s+(?:ruled\s+out|excluded|dismissed|discarded)\b|(?:is|was)\s+(?:out\s*[.!]|an?\s+(?:lie|mistake|error|joke)\b)"
    r"|,\s*which\s+(?:is|was)(?:\s+not|n['’]t)\s+(?:right|correct|true|valid)\b|\s*[,:(–-]?\s*\(?\s*(?:not(?:\s+(?:true|right|correct|valid))?\s*[.!)]*$"
    r"|not\s+(?:true|right|correct|valid)\b|wrong[.!)]*$|false[.!)]*$))",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:that|this|it|the\s+above|the\s+(?:answer|value|statement)|what\s+i\s+(?:just\s+)?said|(?:all|none|everything)(?:\s+of)?\s+(?:this|that|the\s+above))"
    rf"\s*(?:is|was|are|['’]s)\s+(?:\w+ly\s+|all\s+)?(?:{_WRONG}|a\s+(?:lie|joke|mistake|guess)\b|made\s+up\b|not\s*[.!]|the\s+opposite\b)"
    r"|\b(?:that|this|it)\s*(?:isn['’]t|wasn['’]t)\s+(?:true|right|correct|it|the\s+(?:answer|case))\b"
    r"|\b(?:just\s+kidding|scratch\s+that|strike\s+that|never\s?mind|i\s+lied|i\s+(?:just\s+)?(?:made|invented)\s+(?:that|it|this)\b|i\s+was\s+(?:wrong|joking|mistaken)|i\s+take\s+(?:that|it)\s+back|disregard|ignore\s+(?:that|this)"
    r"|correction\s*:|(?:wait,?\s+no|no,?\s+wait)\b|i\s+(?:misread|misspoke)\b|that\s+was\s+a\s+(?:slip|typo)\b|(?:oh|or)\s+no\b|actually,?\s+no\b|on\s+second\s+thought|don['’]t\s+believe)\b|(?<=[.!?])\s*(?:no|not|wrong|false|nope)\s*[.!]*\s*$",
    re.IGNORECASE,
)
# "42? Certainly not."
_ANSWERED_NO = re.compile(
    r"[^?]*\?+\W*(?:\w+ly\s+|of\s+course\s+)?(?:no|not|nope|never|wrong|false|hardly|barely|scarcely|far\s+from)\b", re.IGNORECASE
)
_GUESSED = re.compile(
    r"\b(?:not\s+(?:\w+\s+)?(?:sure|certain|clear)|(?:are|is|am|was)n['’]t\s+(?:sure|certain)|unsure|uncertain|(?:do\s+not|don['’]?t|cannot|can['’]?t|could\s+not|couldn['’]t)\s+"
    r"(?:\w+\s+)?(?:know|tell|say|determine|find|be\s+sure)|no\s+idea|no\s+clue|i\s+guess|(?:wild|random|just\s+a|only\s+a|my)\s+guess|(?:i|we)(?:['’]d|\s+would)?\s+(?:guess|estimate|reckon|speculate)|(?:an?|my)\s+estimate"
    r"|(?:not|n['’]?t|unable\s+to|no\s+way\s+to)\s+(?:\w+\s+)?(?:verify|confirm|check)\s+(?:it|that|this)|who\s+knows|hard\s+to\s+say"
    r"|(?:if|as\s+far\s+as)\s+(?:i|we)\s+(?:remember|recall)(?:\s+\w+ly)?|if\s+(?:i|we)\s+(?:am|are)\s+not\s+mistaken|from\s+memory|last\s+(?:i|we)\s+(?:heard|checked))\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|presumably|most\s+likely|(?:i|we)\s+(?:assume|suspect|presume|gather)|might|may\s+be|may\s+have|could\s+be|could\s+have|can\s+be\s+either|either|allegedly|supposedly|used\s+to|formerly"
    r"|give\s+or\s+take|(?:some|others|they)\s+(?:say|think|claim)|rumou?r\w*|old|former|previous(?:ly)?|pretend|imagine|hypothetically|unknown|whether|neither|somewhere|some\s?thing\s+like|should\s+have\s+been|would\s+have\s+been|expected\s+to)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\s*(?:(?:\w+\s+)?(?:if|unless|suppose|assuming|in case)|(?:had|were|should)\s+(?:it|he|she|they|there|this|that|the|an?|you|we|i))\b",
    re.IGNORECASE,
)
# How far before a value its bound may stand ("more than about 42").
_NEAR = 80
# And how far what denies it: longer than any sentence, short for a text without an end.
_FAR = 600
_ARTICLE = r"(?:\s+(?:the|a|an|exactly|about))?\s*[$€£¥'\"*]*$"
_BEYOND = re.compile(
    r"(?:\b(?:more|less|other|\w{2,}er)\s+than"
    r"|\b(?:over|under|above|below|beyond|exceed(?:s|ing)?|short\s+of|past|not\s+quite|twice|double|triple|half(?:\s+of)?|quarter\s+of|square\s+(?:root\s+)?of|any\s+number\s+but|beats?|defeat(?:s|ed)|ahead\s+of|skip(?:s|ped)?|lacks?(?:\s+being)?|omit(?:s|ted)?|bypass(?:es|ed)?|outside(?:\s+of)?|(?:avoid(?:s|ed)?|escape[sd]?|miss(?:es|ed)?|stop(?:s|ped)\s+short\s+of)(?:\s+being)?"
    r"|(?:awaits?|awaiting|wait(?:s|ing)?\s+for|yet\s+to\s+be|needs?\s+to\s+be|has\s+to\s+be|as\s+good\s+as)(?:\s+being)?|(?:day|week|month|year|hour|minute)s?\s+(?:before|after|following|preceding))|(?<=\w\s)[<>]|(?<=\w)[<>]|(?:^|\s)[!¬])"
    + _ARTICLE,
    re.IGNORECASE,
)
_BOUNDED = re.compile(
    r"(?:\b(?:at\s+least|at\s+most|up\s+to|upwards\s+of|minimum\s+of|maximum\s+of|almost|nearly|near|close\s+to|before|after|until|till|since|between|from|through"
    rf"|not?\s+(?:longer|higher|lower|more|less|later|earlier|fewer)\s+than|within)|[≤≥]|[<>]=){_ARTICLE}",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"\b(?:until|till|through|up\s+to|at\s+most)" + _ARTICLE, re.IGNORECASE)
_ASKS_LIMIT = re.compile(
    r"\b(?:last|latest|until|deadline|closes?|ends?|expires?|max(?:imum)?|at\s+most|limit|capacity|can|fit)\b", re.IGNORECASE
)
_ORIGIN = re.compile(r"\b(?:from|through|since|within)" + _ARTICLE, re.IGNORECASE)
# "It is to be approved": it is not yet.
_STILL_TO_BE = re.compile(
    r"(?<!seem)(?<!seems)(?<!seemed)(?<!appear)(?<!appears)(?<!appeared)(?<!out)(?<!happens)(?<!found)(?<!known)(?<!said)(?<!me)\s*\bto\s+be\s+$",
    re.I,
)
# "4.12.0 was removed", "Gate B14 has been closed": the value may not stand any more.
_GONE_AFTER = re.compile(
    rf"[{_QUOTE}]*\s+(?:(?:was|were|is|got)|(?:has|have|had)\s+(?:since\s+)?been)\s+(?:\w+ly\s+|since\s+|later\s+)?(?P<how>removed|replaced|deleted|uninstalled"
    r"|revoked|withdrawn|retired|discontinued|superseded|cancell?ed|closed|dropped|rejected|defeated|beaten|fired|dismissed|overruled)\b",
    re.IGNORECASE,
)
BOUND_AFTER = re.compile(
    r"\s*(?:or\s+(?:more|less|so|later|earlier|higher|lower|fewer|thereabouts|something)|and\s+(?:up|more|counting|over)\b|\+(?!\d)|(?:plus|minus)\b|-?ish\b"
    r"|at\s+(?:the\s+)?(?:most|least)\b|(?:is\s+)?too\s+(?:high|low|many|few|much|little)\b|squared\b|cubed\b|(?:%|percent)\s+(?:less|more)\b|times\s+(?:less|more)\b"
    r"|max(?:imum)?\b|minimum\b|tops\b)",
    re.I,
)


def blank(text: str, spans: Iterable[Span]) -> str:
    """The text with these places overwritten by a filler, so that they are not read again; positions stay."""
    for start, end in spans:
        text = text[:start] + "\x00" * (end - start) + text[end:]
    return text


def clauses(text: str) -> list[Clause]:
    """The clauses of a text, in order."""
    parts: list[Clause] = []
    place = 0
    for end in [*_SENTENCE_END.finditer(text), None]:
        stop = len(text) if end is None else end.start()
        if text[place:stop].strip():
            parts += _of_sentence(text, place, stop, "?" in (end[0] if end else ""))
        if end is not None:
            place = end.end()
    return parts


def _of_sentence(text: str, start: int, stop: int, is_asked: bool) -> list[Clause]:
    sentence = text[start:stop]
    joints = [match.start() for match in _CONJUNCTION.finditer(sentence)]
    cuts = {start, *(start + at for at in joints if not (sentence[at:].lower().startswith("but") and _EXCEPTING_BUT.search(sentence[:at])))}
    # "It is 15:05 and summer time is not in effect": two clauses where each has its verb.
    ands = [match.start() for match in re.finditer(r"\band\b", sentence, re.IGNORECASE)]
    verbs = [match.start() for match in _VERB.finditer(sentence)]
    cuts.update(start + at for at in ands if verbs and verbs[0] < at < verbs[-1])
    firm, last = sorted(cuts), start
    commas = [start + match.end() for match in re.finditer(r"[,:]\s", text[start:stop])]
    for index, comma in enumerate(commas):
        segment = text[comma : commas[index + 1] if index + 1 < len(commas) else stop]
        before = text[max(last, firm[bisect_right(firm, comma) - 1]) : comma]
        is_colon = text[comma - 2 : comma].startswith(":")
        if (
            _OPENS_CLAUSE.match(segment)
            or _INTERJECTION.fullmatch(before)
            or (_VERB.search(segment) and not (is_colon and not _SUBJECT.match(segment)) and not _ASIDE.match(segment))
        ):
            cuts.add(comma)
            last = comma
    bounds = [*sorted(cuts), stop]
    return [Clause(left, right, text[left:right], (start, stop), is_asked) for left, right in pairwise(bounds) if text[left:right].strip()]


def negations(text: str, *, is_literal: bool = False) -> list[re.Match[str]]:
    """The words of a clause that negate it; "not only", "not wrong" and "no doubt" do not, unless every word is wanted (`is_literal`)."""
    return list(_NEGATOR.finditer(text if is_literal else _HARMLESS.sub(lambda match: " " * len(match[0]), text)))


@lru_cache(maxsize=64)
def _places_of_negations(text: str) -> tuple[int, ...]:
    return tuple(match.start() for match in negations(text))  # a clause is asked for each value in it


def has_verb(text: str) -> bool:
    """Whether a text holds one of the common finite verbs."""
    return _VERB.search(text) is not None


def is_guessed(text: str) -> bool:
    """Whether an answer says of itself that it does not know."""
    return _GUESSED.search(text) is not None


def is_taken_back(text: str) -> bool:
    """Whether an answer in yes and no takes one of them back ("No, wait, it is")."""
    match = _TAKEN_BACK.search(text)
    return (
        match is not None
        and re.search(r"wait|kidding|scratch|strike|lied|joking|second\s+thought|misread|misspoke", match[0], re.IGNORECASE) is not None
    )


def is_hedged(clause: Clause) -> bool:
    """Whether a clause asks, or only supposes."""
    return clause.is_asked or _HEDGED.search(clause.text) is not None or _CONDITION.match(clause.text) is not None


def stances(text: str, spans: Sequence[Span], question: str = "", *, has_truth: bool = False, is_text: bool = False) -> list[Stance]:
    """What the text says about the values at these places, in order.

    Args:
        question: the task; what it negates itself ("Which is not open?") does not negate the answer.
        is_text: the values are texts: "from Oslo" and "through Oslo" are no bounds.
        has_truth: the answer also says yes or no, so that a "No." alone takes nothing back.

    Example:
        >>> text = "I do not think it is 42, but it is 17."
        >>> [stance.value for stance in stances(text, [(text.index("42"), text.index("42") + 2), (text.index("17"), text.index("17") + 2)])]
        ['denied', 'stated']
    """
    bare = blank(text, spans)
    parts = clauses(bare)
    is_open = is_guessed(bare)
    gone = [match["how"].lower() not in question.lower() if (match := _GONE_AFTER.match(bare, end)) else False for _, end in spans]
    exempt = _ORIGIN if is_text else _LIMIT if _ASKS_LIMIT.search(question) else None
    back = [match.start() for match in _TAKEN_BACK.finditer(bare) if not (has_truth and re.fullmatch(r"\W*(?:no|nope)\W*", match[0], re.I))]
    views = []
    for (start, end), is_gone in zip(spans, gone, strict=True):
        clause = next((part for part in parts if part.start <= start < part.end), Clause(start, end, bare[start:end], (start, end)))
        stance = _stance_in(bare, clause, start, end, bool(negations(question)), exempt)
        if any(place >= end for place in back):
            stance = Stance.DENIED
        views.append(Stance.OPEN if (is_open or is_gone) and stance is Stance.STATED else stance)
    return views


def _stance_in(bare: str, clause: Clause, start: int, end: int, is_negated_question: bool, exempt: re.Pattern[str] | None) -> Stance:
    before, after = clause.text[: start - clause.start], clause.text[end - clause.start :]
    rest = bare[end : max(clause.sentence[1], clause.end)]
    said = _HARMLESS.sub(lambda match: " " * len(match[0]), bare[max(clause.sentence[0], start - _FAR) : start])
    plain = _HARMLESS.sub(" ", before[-_FAR:])
    if _EXCEPTING.search(plain) or _DENIED_AFTER.match(bare[end:]) or _BEYOND.search(plain[-_NEAR:]):
        return Stance.DENIED
    attitude = _ATTITUDE.search(said)
    if attitude is not None and not _CONJUNCTION.search(said, attitude.end()):
        return Stance.OPEN if is_negated_question else Stance.DENIED
    where = _places_of_negations(clause.text)
    if clause.is_asked and _ANSWERED_NO.match(bare[end:]):
        return Stance.DENIED
    if any(place < len(before) for place in where):
        return Stance.OPEN if is_negated_question else Stance.DENIED
    was = re.search(r"\bwas\b", before, re.IGNORECASE)
    if was is not None and (not before[: was.start()].strip() or re.search(r"\bnow\b", rest + bare[clause.end :], re.IGNORECASE)):
        return Stance.OPEN
    if (where and not is_negated_question) or _is_bounded(before[-_NEAR:], after, exempt) or BOUND_AFTER.match(after):
        return Stance.OPEN
    if _STILL_TO_BE.search(before[-_NEAR:]):
        return Stance.OPEN
    if is_hedged(clause) or (clause.is_asked and "?" in rest):
        return Stance.OPEN
    return Stance.STATED


def _is_bounded(before: str, after: str, exempt: re.Pattern[str] | None) -> bool:
    """ "From 42", "until 3 pm"; but a text may come "from Oslo", if not "from Oslo to Bergen", and a limit that is asked for may be one."""
    is_exempt = exempt is not None and exempt.search(before) is not None and re.match(r"\s+to\b", after) is None
    return _BOUNDED.search(before) is not None and not is_exempt
