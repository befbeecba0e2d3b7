"""Units of measure and currencies: how they are spelled, what they measure, and which one a question asks for.

Not for numbers themselves (numerals.py).
"""

from __future__ import annotations

import re

# Unit -> (dimension, factor to the dimension's own unit, the spellings). Temperatures also have an offset (`_KELVIN_AT_ZERO`).
_UNITS: tuple[tuple[str, float, str], ...] = (
    ("time", 0.001, "ms millisecond milliseconds"), ("time", 1, "s sec secs second seconds"), ("time", 60, "min mins minute minutes"),
    ("time", 3600, "h hr hrs hour hours"), ("time", 86400, "d day days"), ("time", 604800, "week weeks"),
    ("length", 0.001, "mm millimeter millimeters millimetre millimetres"),
    ("length", 0.01, "cm centimeter centimeters centimetre centimetres"),
    ("length", 1, "m meter meters metre metres"), ("length", 1000, "km kms kilometer kilometers kilometre kilometres"),
    ("length", 1609.344, "mi mile miles"), ("length", 0.3048, "ft foot feet"), ("length", 0.0254, "inch inches"),
    ("length", 0.9144, "yard yards"),
    ("mass", 1e-6, "mg milligram milligrams"), ("mass", 0.001, "g gram grams"), ("mass", 1, "kg kilogram kilograms kilo kilos"),
    ("mass", 1000, "tonne tonnes ton tons"), ("mass", 0.45359237, "lb lbs pound pounds"), ("mass", 0.028349523125, "oz ounce ounces"),
    ("volume", 0.001, "ml milliliter milliliters millilitre millilitres"), ("volume", 1, "l liter liters litre litres"),
    ("speed", 1, "km/h kmh kph"), ("speed", 3.6, "m/s"), ("speed", 1.609344, "mph"), ("speed", 1.852, "knot knots kn"),
    ("volume", 3.785411784, "gallon gallons"), ("area", 1, "m² sqm"), ("area", 1e6, "km²"), ("area", 1e4, "ha hectare hectares"),
    ("power", 1, "watt watts"), ("power", 1e3, "kw kilowatt kilowatts"), ("power", 1e6, "megawatt megawatts"), ("energy", 1, "kwh"),
    ("frequency", 1, "hz"), ("frequency", 1e3, "khz"), ("frequency", 1e6, "mhz"), ("frequency", 1e9, "ghz"),
    ("pressure", 1, "hpa mbar"), ("pressure", 1e3, "bar"), ("energy", 1 / 860.42, "kcal"),
    ("data", 0.125, "bit bits"), ("data", 125, "kbit kilobits"), ("data", 125e3, "mbit megabits"), ("data", 125e6, "gbit gigabits"),
    ("data", 1, "byte bytes"), ("data", 1e3, "kb kilobyte kilobytes"), ("data", 1e6, "mb megabyte megabytes"),
    ("data", 1e9, "gb gigabyte gigabytes"), ("data", 1e12, "tb terabyte terabytes"),
    ("share", 1, "% percent"), ("points", 1, "percentage points"),
    ("celsius", 1, "°c c celsius centigrade"), ("fahrenheit", 1, "°f f fahrenheit"), ("kelvin", 1, "k kelvin"),
    ("degree", 1, "° degree degrees"),
    ("usd", 1, "$ us$ usd dollar dollars"), ("eur", 1, "€ eur euro euros"), ("gbp", 1, "£ gbp"), ("jpy", 1, "¥ jpy yen"),
    ("chf", 1, "chf francs"), ("sek", 1, "sek"), ("nok", 1, "nok"), ("dkk", 1, "dkk"), ("pln", 1, "pln zloty"), ("inr", 1, "₹ inr rupees"),
    ("cny", 1, "cny yuan"), ("cad", 1, "c$ ca$ cad"), ("aud", 1, "a$ au$ aud"), ("brl", 1, "r$ brl"),
)  # fmt: skip
UNIT_OF = {spelling: (dimension, factor) for dimension, factor, spellings in _UNITS for spelling in spellings.split()}
# What a "how many" asks for where it names no unit: any but a share.
COUNT = ("count", 1.0)
TEMPERATURES = ("celsius", "fahrenheit", "kelvin")
_AFTER_THINGS = "is|are|was|were|do|does|did|has|have|had|can|could|will|would|in|on|of|for|at|with|there|it|remain|exist"
UNIT_NAMES = "|".join(sorted((re.escape(name) for name in UNIT_OF if name[0] not in "$€£¥"), key=len, reverse=True))


def asked_things(question: str) -> frozenset[str]:
    """The things that a question wants counted, by how their names begin ("How many open invoices does …": open, invoi).

    Example:
        >>> sorted(asked_things("How many open invoices are there?"))
        ['invoi', 'open']
    """
    match = re.search(rf"\bhow\s+many\s+((?:(?!(?:{_AFTER_THINGS})\b)[^\W\d_]+\s+){{1,4}})", question, re.IGNORECASE)
    return frozenset(word[:5].casefold() for word in match[1].split()) if match else frozenset()


def asked_unit(question: str) -> tuple[str, float] | None:
    """The unit in which a question wants its number ("How cold is it in °C?"), where it names one.

    Example:
        >>> asked_unit("What does it cost in euros?")
        ('eur', 1)
    """
    match = re.search(
        rf"\b(?:in|many|much\s+in)\s+(?P<unit>(?i:degrees\s+|us\s+)?(?i:{UNIT_NAMES}))(?!\w)|\s\((?P<bracketed>(?i:{UNIT_NAMES}))\)",
        question,
    )
    if match is None and re.search(r"\bwhat\s+percent|\bpercentage\b", question, re.IGNORECASE):
        return UNIT_OF["%"]
    if match is None:
        return COUNT if re.search(r"\bhow\s+many\b", question, re.IGNORECASE) else None
    name = re.sub(r"^(?:degrees|us)\s+", "", (match["unit"] or match["bracketed"]).lower())
    return UNIT_OF.get(name) if len(name) > 1 or match["bracketed"] else None


def kelvin(value: float, dimension: str) -> float:
    if dimension == "fahrenheit":
        return (value - 32) / 1.8 + 273.15
    return value + 273.15 if dimension == "celsius" else value
