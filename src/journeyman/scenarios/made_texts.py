"""Texts made up from what a schema says of their form: a `pattern`, a common `format`. Not for what they mean (see `proposals`).

Addresses are those reserved for documentation, so that a tool which really uses one reaches nobody. Dates and times are made in
`pools`, together with numbers.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from journeyman.mcp.schemas import argument_faults
from journeyman.scenarios.patterns import matching_texts

_WORDS = "amber birch cedar delta ember fjord grove harbor island jasper kernel lagoon meadow nectar orchid pebble quartz river".split()
_HOSTS = ("example.com", "example.org", "example.net")
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
_TRIES_PER_VALUE = 4


def made_texts(schema: Mapping[str, Any], rng: random.Random, count: int) -> list[str]:
    """At most `count` different texts that fit the schema's pattern, or its format where it has no pattern that can be read."""
    if schema.get("type", "string") != "string":
        return []
    found: list[str] = []
    if isinstance(schema.get("pattern"), str):
        found = matching_texts(schema["pattern"], rng, _TRIES_PER_VALUE * count)
    elif (draw := _FORMATS.get(str(schema.get("format")))) is not None:
        found = list(dict.fromkeys(draw(rng) for _ in range(_TRIES_PER_VALUE * count)))
    return [text for text in found if not argument_faults(schema, text)][:count]


def _word(rng: random.Random) -> str:
    return rng.choice(_WORDS)


def _email(rng: random.Random) -> str:
    return f"{_word(rng)}.{_word(rng)}@{rng.choice(_HOSTS)}"


def _host(rng: random.Random) -> str:
    return f"{_word(rng)}.{rng.choice(_HOSTS)}"


def _uri(rng: random.Random) -> str:
    return f"https://{rng.choice(_HOSTS)}/{_word(rng)}/{_word(rng)}"


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _ipv4(rng: random.Random) -> str:
    return f"{rng.choice(_NETWORKS)}.{rng.randint(1, 254)}"


def _ipv6(rng: random.Random) -> str:
    return f"2001:db8::{rng.randint(1, 0xFFFF):x}"


def _duration(rng: random.Random) -> str:
    return rng.choice((f"PT{rng.randint(1, 59)}M", f"PT{rng.randint(1, 23)}H", f"P{rng.randint(1, 30)}D"))


_FORMATS: Mapping[str, Callable[[random.Random], str]] = {
    "email": _email,
    "idn-email": _email,
    "hostname": _host,
    "idn-hostname": _host,
    "uri": _uri,
    "url": _uri,
    "iri": _uri,
    "uuid": _uuid,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "duration": _duration,
}
