"""Settings that hold a secret: a type that is never written out, and which parts of URLs and commands are secret.

    Secret("Bearer abc")        shown and stored as ***
    Secret("Bearer ${TOKEN}")   shown and stored as it is; the value is taken from the environment whenever it is needed

Not for finding secrets in free text: `redaction.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

from pydantic import AfterValidator, GetCoreSchemaHandler, SerializationInfo
from pydantic_core import core_schema

from journeyman.errors import SettingError
from journeyman.redaction import HIDDEN, redact, remember

#: Given to `model_dump(mode="json", context=...)`: references are hidden too, so that two ways to give a secret compare equal.
ALL_HIDDEN: Final = {"secrets": "all hidden"}

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = frozenset(
    (
        "token tokens secret secrets password passwd pass passphrase pwd pw key keys apikey auth authorization authentication bearer "
        "credential credentials cookie cookies session signature sig jwt pat accesskey secretkey privatekey accesstoken authtoken "
        "apitoken dsn"
    ).split()
)
_NAMES_NO_SECRET = frozenset("max min num sort primary foreign".split())
_GIVES_NAME_AND_VALUE = frozenset(("-H", "--header", "--headers", "-e", "--env", "-u", "--user"))
# What well-known issuers give out, and long words of letters and figures that are neither path nor version.
_TOKEN = re.compile(
    r"(?:sk|pk|rk|ghp|gho|ghs|ghu|github_pat|glpat|xox[a-z]|hf|npm|AKIA|eyJ)[-_A-Za-z0-9]\S{7,}|(?=\D*\d)(?=.*[A-Za-z])[\w+=-]{24,}"
)
_RANDOM = re.compile(r"(?=\D*\d)(?=.*[A-Za-z])\S{8,}|[^\s/.]{16,}", re.DOTALL)
_PARTS = re.compile(r"[^\w+=-]+")
_NAME = re.compile(r"[\w.-]+")
_OPTION = re.compile(r"--\S*|-[A-Za-z]")
_URL = re.compile(r"^([^:/?#\s]+://)?(?:([^/?#]*)@)?([^?#]*)(?:\?([^#]*))?(?:#(.*))?$", re.DOTALL)
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>|;]+")
_VALUE = r"(\"[^\"]*\"|'[^']*'|[^\s\"'&;|,}]+)"
_ASSIGNMENTS = (
    re.compile(rf"([\w.-]+)([\"']?\s*[=:]\s*(?:(?:Bearer|Basic|Token)\s+)?){_VALUE}"),
    re.compile(rf"(?<!\S)(--?[\w.-]+)(\s+){_VALUE}"),
)
# The same options with what they give in the same word.
_ATTACHED = re.compile(r"(--headers?=|--env=|-H|-e)([\w.-]+\s*[=:]\s*)(.+)", re.DOTALL)
_GIVE_AGAIN = "secrets are never kept: give it again, or let it refer to an environment variable, as ${NAME}, which is kept"


class Secret:
    """A text that is or holds a secret. `str()` and JSON give what may be shown; `value` the text itself.

    Args:
        text: in it `${NAME}` stands for an environment variable.
        shown: the text with `***` for its secret parts, but for those that are references.
        hidden: as `shown`, with `***` for the references too.
        is_literal: it has no references: what looks like one is part of it.

    Example:
        >>> str(Secret("abc")), str(Secret("Bearer ${TOKEN}"))
        ('***', 'Bearer ${TOKEN}')
    """

    __slots__ = ("_is_literal", "_text", "hidden", "shown")

    def __init__(self, text: str, *, shown: str | None = None, hidden: str = HIDDEN, is_literal: bool = False) -> None:
        self._text = text
        self._is_literal = is_literal
        self.shown = shown if shown is not None else text if _is_reference(text) else HIDDEN
        self.hidden = hidden

    def value(self, variable: Callable[[str], str | None], *, what: str = "a secret") -> str:
        """The text with its references replaced. `variable` gives the value of an environment variable, `what` names the setting.

        Raises SettingError: `secret_missing` (it was given in clear to an earlier command, so it was not kept), `secret_not_set` (an
        environment variable that it refers to is not set).
        """
        if HIDDEN in self._text:
            raise SettingError(f"{what} was not kept", hint=_GIVE_AGAIN, reason="secret_missing")
        if self._is_literal:
            return self._text
        values = {name: variable(name) for name in _REFERENCE.findall(self._text)}
        unset = [name for name, value in values.items() if not value]
        if unset:
            named = ", ".join(unset)
            raise SettingError(
                f"{what} refers to an environment variable that is not set: {named}", hint=f"export {unset[0]}=…", reason="secret_not_set"
            )
        remember(value for value in values.values() if value)
        return _REFERENCE.sub(lambda match: values[match[1]] or "", self._text)

    def remember_as(self, name: str) -> None:
        """From now on the text is hidden wherever it appears, unless it looks like an ordinary word that `name` does not call secret."""
        if is_secret_name(name) or _looks_random(self._text.rpartition(" ")[2]):
            remember([self._text])

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Secret({self.shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True))
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_text]),
            serialization=core_schema.plain_serializer_function_ser_schema(_written, info_arg=True, when_used="json"),
        )


def is_secret_name(name: str) -> bool:
    """Whether a name says that what it names is secret: of an option, a header, a variable, a parameter.

    Example:
        >>> [is_secret_name(name) for name in ("--api-key", "X-Auth-Token", "githubToken", "--monkey", "--max-tokens", "--port")]
        [True, True, True, False, False, False]
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    return any(word in _SECRET_WORDS for word in words) and words[0] not in _NAMES_NO_SECRET


def remember_key(key: str | None) -> None:
    """From now on a key is hidden wherever it appears, unless it is an ordinary word, such as those given where none is needed."""
    if key:
        Secret(key).remember_as("")


def hide_in_url(text: str) -> str | Secret:
    """A URL as a Secret when it holds one: what stands before its `@`, the values of its parameters, its fragment; or a reference.

    Example:
        >>> str(hide_in_url("https://me:pw@host/mcp?token=abc&v=${VERSION}"))
        'https://***@host/mcp?token=***&v=${VERSION}'
    """
    return _hidden(text, _written_url)


def hide_in_command(words: Sequence[str | Secret]) -> tuple[str | Secret, ...]:
    """The words of a command, those that hold a secret as Secrets: `--token abc`, `--api-key=abc`, `-H "Authorization: Bearer abc"`,
    `API_KEY=abc`, URLs with a password or parameters, words that look like a token, and references.

    Example:
        >>> [str(word) for word in hide_in_command(["serve", "--api-key=abc", "--token", "${TOKEN}", "--port", "80"])]
        ['serve', '--api-key=***', '--token', '${TOKEN}', '--port', '80']
    """
    hidden: list[str | Secret] = []
    for word in words:
        before = str(hidden[-1]) if hidden else ""
        hidden.append(word if isinstance(word, Secret) else _hidden(word, partial(_written_word, before=before), is_script=before == "-c"))
    return tuple(hidden)


def hide_in_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of any program as they may be stored: hidden are values under `headers` and `env`, parts of URLs and commands, and texts
    whose name says that they are secret; references are kept.

    Example:
        >>> hide_in_settings({"target": {"url": "http://h/?key=abc", "headers": {"X": "abc"}}, "judge": {"api_key_env": "KEY", "seed": 1}})
        {'target': {'url': 'http://h/?key=***', 'headers': {'X': '***'}}, 'judge': {'api_key_env': 'KEY', 'seed': 1}}
    """
    return {name: _hidden_setting(name, value) for name, value in settings.items()}


def _hidden_setting(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        is_secret = name.lower().endswith(("headers", "env"))
        return {
            key: str(Secret(part)) if is_secret and isinstance(part, str) else _hidden_setting(key, part) for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        is_command = name == "command" and all(isinstance(part, str) for part in value)
        return [str(part) for part in hide_in_command(value)] if is_command else [_hidden_setting(name, part) for part in value]
    if not isinstance(value, str):
        return value
    if is_secret_name(name) and not name.endswith("_env"):
        return str(Secret(value))
    return str(hide_in_url(value)) if "://" in value and not any(map(str.isspace, value)) else redact(value)


class _Hide:
    """Replaces secret parts, and remembers them."""

    def __init__(self, *, keeps_references: bool) -> None:
        self._keeps_references = keeps_references

    def __call__(self, text: str, name: str) -> str:
        if not text or (self._keeps_references and _is_reference(text)):
            return text
        if is_secret_name(name) or _looks_random(text):
            remember([text])
        return HIDDEN


def _hidden(text: str, written: Callable[[str, _Hide], str], *, is_script: bool = False) -> str | Secret:
    """`text` as a Secret if `written`, which hides its secret parts, changes it. What stands in braces in a script is the script's own."""
    shown = written(text, _Hide(keeps_references=not is_script))
    hidden = written(text, _Hide(keeps_references=False))
    if not is_script:
        hidden = _REFERENCE.sub(HIDDEN, hidden)
    return text if hidden == text and HIDDEN not in text else Secret(text, shown=shown, hidden=hidden, is_literal=is_script)


def _written_url(text: str, hide: _Hide) -> str:
    match = _URL.match(text)
    assert match is not None, "every text matches"
    scheme, user, place, query, fragment = match.groups()
    written = (scheme or "") + ("" if user is None else f"{hide(user, 'password')}@") + place
    if user is not None:
        hide(user.partition(":")[2], "password")  # the password is also quoted alone
    if query is not None:
        written += "?" + "&".join(_written_pair(part, hide) for part in query.split("&"))
    return written if fragment is None else f"{written}#{hide(fragment, 'fragment')}"


def _written_pair(part: str, hide: _Hide) -> str:
    name, equals, value = part.partition("=")
    return f"{name}={hide(value, name)}" if equals else hide(part, "")


def _written_word(word: str, hide: _Hide, *, before: str) -> str:
    is_named_before = before.startswith("-") and "=" not in before and is_secret_name(before)
    if is_named_before and not _OPTION.fullmatch(word):
        return hide(word, before)
    if before in _GIVES_NAME_AND_VALUE and (match := re.match(r"([^=:]+)([=:]\s*)(.*)$", word, re.DOTALL)):
        return match[1] + match[2] + hide(match[3], match[1])
    if match := _ATTACHED.fullmatch(word):
        return match[1] + match[2] + hide(match[3], match[2])
    name, equals, value = word.partition("=")
    if equals and _NAME.fullmatch(name) and (is_secret_name(name) or _TOKEN.fullmatch(value)):
        return f"{name}={hide(value, name)}"
    if _TOKEN.fullmatch(word):
        return hide(word, "token")
    word = _URL_IN_TEXT.sub(lambda match: _written_url(match[0], hide), word)
    for assignment in _ASSIGNMENTS:
        word = assignment.sub(lambda match: _written_assignment(match, hide), word)
    return word


def _written_assignment(match: re.Match[str], hide: _Hide) -> str:
    name, sign, value = match.groups()
    if not is_secret_name(name) or value == HIDDEN:
        return match[0]
    mark = value[0] if value[0] in "\"'" else ""
    return f"{name}{sign}{mark}{hide(value.strip(mark) if mark else value, name)}{mark}"


def _is_reference(text: str) -> bool:
    """Whether the secret stands in a variable: what is written beside it (`Bearer`, a host) is none itself."""
    return bool(_REFERENCE.search(text)) and not any(_looks_random(word) for word in _PARTS.split(_REFERENCE.sub(" ", text)))


def _looks_random(text: str) -> bool:
    return bool(_RANDOM.fullmatch(text))


def _written(secret: Secret, info: SerializationInfo) -> str:
    return secret.hidden if info.context == ALL_HIDDEN else secret.shown


Redacted = Annotated[str, AfterValidator(redact)]
SecretUrl = Annotated[str | Secret, AfterValidator(lambda url: hide_in_url(url) if isinstance(url, str) else url)]
SecretCommand = Annotated[tuple[str | Secret, ...], AfterValidator(hide_in_command)]


def checked_key(value: str, name: str) -> str:
    """A key or token as it is sent, without the white space around it: `$(cat file)` and Windows leave some there.

    From now on it is hidden wherever it would be shown.

    Args:
        name: the variable, option or argument that holds it. An error names that; it never shows the value.

    Raises SettingError (malformed_key).

    Example:
        >>> checked_key("sk-123\\r\\n", "OPENAI_API_KEY")
        'sk-123'
    """
    key = value.strip()
    remember_key(key)
    if len(key) >= 2 and key[0] == key[-1] and key[0] in "\"'`":
        raise _malformed(name, "stands in quotes", "give it without them")
    return _sendable(key, name, r"\x21-\x7e")


def checked_header(name: str, value: str, where: str) -> tuple[str, str]:
    """A header of HTTP as it is sent: like `checked_key`, but with blanks inside. `where`: what holds it."""
    if not _HEADER_NAME.fullmatch(name.strip()):
        raise _malformed(where, "has a header without a usable name", "write NAME: VALUE; a name is letters, digits and '-'")
    sent = _sendable(value.strip(), f"the header {name.strip()} of {where}", r"\x20-\x7e\t")
    Secret(sent, is_literal=True).remember_as(name)
    return name.strip(), sent


def _sendable(value: str, name: str, signs: str) -> str:
    if not value:
        raise _malformed(name, "is blank", "set it, or leave it out")
    odd = re.search(f"[^{signs}]", value)
    if odd is None:
        return value
    place = f"U+{ord(odd.group()):04X}, character {odd.start() + 1} of {len(value)}"
    raise _malformed(name, f"holds {_kind_of(odd.group())} ({place})", "copy it again, whole and nothing else")


def _kind_of(sign: str) -> str:
    if sign in "\r\n\x85\u2028\u2029":
        return "a line end"
    if sign.isspace():
        return "white space"
    if sign in "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb":
        return "a curly quote"
    return "a sign that is not ASCII" if sign.isprintable() else "an invisible sign"


def _malformed(name: str, what: str, hint: str) -> SettingError:
    return SettingError(f"{name} {what}, so it cannot be sent", hint=f"{hint}; the value is not shown here", reason="malformed_key")
