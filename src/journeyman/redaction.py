"""What may be shown of a text. Known secrets become `***`; what would steer a terminal becomes visible.

The lowest part of the house: errors, logs, reports, the store and the terminal all pass their texts through here. This is the second line:
the first is that settings hold secrets in a type of its own (`types/secrets.py`), which is never written out.
"""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
_MIN_LENGTH = 6  # shorter ones are words of other texts too

_ROLLOUT_TOKEN = re.compile(r"(/r/[A-Za-z0-9_-]+\.)[A-Za-z0-9_-]+")
# After "Authorization" and a sign (: = , or a quote) the word of three signs and more that follows a scheme (Bearer, Basic, ...); where no
# scheme is named, a word of eight signs and more with a digit. Elsewhere only what follows "Bearer", and only a word with a digit, a dot,
# a dash or an underscore. So these are left alone:
#   the bearer of news                no digit, dot, dash or underscore
#   authorization: 401 Unauthorized   no scheme, and no digit in a word of eight signs
#   authorization token missing       no sign after "authorization"
#   Authorization: Bearer TOKEN       a placeholder: TOKEN, KEY, $NAME and ${NAME}, all in capitals and as whole words
_CREDENTIALS = re.compile(
    r"(?i)(\bauthorization\s*[:=,\"'][\s:=,\"']{0,5}(?:(?:bearer|basic|token|api-?key|digest|negotiate|oauth|jwt)\s+|(?=\S*\d)(?=\S{8}))"
    r"|\bbearer\s+(?=\S*[\d._-]))"
    r"(?!(?-i:TOKEN|KEY|\$[A-Z_][A-Z0-9_]*|\$\{[A-Z_][A-Z0-9_]*\})(?:[\s\"'`,]|$))[^\s\"'`,]{3,}"
)
_PARAMETER = re.compile(r"(?i)([?&#;][\w.-]*(?:token|key|secret|password|passwd|auth|signature|sig|credential)[\w.-]*=)[^&\s#\"'<>]+")
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#\"'<>]+@")

_secrets: dict[str, None] = {}


def remember(secrets: Iterable[str]) -> None:
    """From now on `redact` hides these texts, and the forms they take in URLs, in quotes and in Basic authorization.

    Texts of fewer than six characters are not taken: they would be found inside other words.
    """
    for secret in secrets:
        # "Bearer abc" is also sent and quoted without its scheme.
        for text in {secret, secret.strip(), secret.strip().rpartition(" ")[2], unquote(secret)}:
            if len(text) < _MIN_LENGTH or HIDDEN in text:
                continue
            in_json = (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])  # as in the arguments of a tool call
            forms = (text, quote(text, safe=""), quote(text), quote_plus(text), repr(text)[1:-1], *in_json, _in_base64(text))
            _secrets.update(dict.fromkeys(form for form in forms if len(form) >= _MIN_LENGTH))


def redact(text: str) -> str:
    """The text with `***` for what is known as secret, rollout tokens, what an Authorization header holds, and a URL's password, keys
    and tokens.

    Example:
        >>> redact("POST /r/ab12.s3cret/v1/chat/completions")
        'POST /r/ab12.***/v1/chat/completions'
    """
    for secret in sorted((known for known in _secrets if known in text), key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _PARAMETER.sub(rf"\1{HIDDEN}", _USERINFO.sub(rf"\1{HIDDEN}@", text))
    return _CREDENTIALS.sub(rf"\1{HIDDEN}", _ROLLOUT_TOKEN.sub(rf"\1{HIDDEN}", text))


def printable(text: str, *, escape: Callable[[str], str] | None = None) -> str:
    r"""The text with every sign that is not printed as itself written out: only tabs and line ends stay.

    Control characters, marks that turn the direction of writing, signs without width, and halves of a surrogate pair. `escape` writes one
    out; as Python does when None.

    Example:
        >>> printable("\x1b[31mred\r\n")
        '\\x1b[31mred\n'
    """
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    escape = escape or _escape
    return "".join(sign if _is_printed(sign) else escape(sign) for sign in text)


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def _is_printed(sign: str) -> bool:
    if sign in "\n\t":
        return True
    if not sign.isprintable():
        return unicodedata.category(sign) == "Zs"  # wide and no-break spaces
    # Python calls these printable, and no terminal shows them.
    return sign not in "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0" and not 0xE0100 <= ord(sign) <= 0xE01EF


def _in_base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")
