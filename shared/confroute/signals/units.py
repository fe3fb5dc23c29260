"""Units, currencies and scales that stand beside numbers, and those that a question sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

PERCENT: Final = "percent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit: amounts of one dimension convert by their factors."""

    name: str
    dimension: str
    factor: Fraction = Fraction(1)

    def without_rate(self) -> Unit:
        """The unit of the whole, of a rate."""
        return Unit(name=self.name.split("/")[0], dimension=self.dimension.split("/")[0], factor=self.factor)


def _units() -> dict[str, Unit]:
    table: dict[str, Unit] = {}
    for dimension, rows in _TABLE.items():
        for names, factor in rows:
            first, *others = names.split()
            unit = Unit(name=first, dimension=dimension, factor=Fraction(factor))
            table |= {name.replace("_", " "): unit for name in (first, *others)}
    return table


# Of each unit its name, its other names, and how much of the dimension's first unit it is.
_TABLE: dict[str, tuple[tuple[str, str], ...]] = {
    PERCENT: (("% \\% percent per_cent", "1/100"), ("‰ per_mille permille", "1/1000")),
    "length": (
        ("m meter meters metre metres", "1"),
        ("mm millimeter millimeters millimetre millimetres", "1/1000"),
        ("cm centimeter centimeters centimetre centimetres", "1/100"),
        ("km kilometer kilometers kilometre kilometres", "1000"),
        ("inch inches", "0.0254"),
        ("ft foot feet", "0.3048"),
        ("yd yard yards", "0.9144"),
        ("mi mile miles", "1609.344"),
    ),
    "mass": (
        ("g gram grams", "1"),
        ("mg milligram milligrams", "1/1000"),
        ("kg kilogram kilograms kilo kilos", "1000"),
        ("tonne tonnes", "1000000"),
        ("lb lbs", "453.59237"),
        ("oz ounce ounces", "28.349523125"),
    ),
    "time": (
        ("s sec secs second seconds", "1"),
        ("ms millisecond milliseconds", "1/1000"),
        ("min mins minute minutes", "60"),
        ("h hr hrs hour hours", "3600"),
        ("day days", "86400"),
        ("week weeks", "604800"),
    ),
    "months": (("month months", "1"), ("year years", "12")),
    "volume": (
        ("l liter liters litre litres", "1"),
        ("ml milliliter milliliters millilitre millilitres", "1/1000"),
    ),
    "cups": (("cup cups", "1"), ("pint pints", "2"), ("quart quarts", "4"), ("gallon gallons", "16")),
    "USD": (("USD usd $ \\$ US$ dollar dollars", "1"), ("cent cents ¢", "1/100")),
    "EUR": (("EUR eur € euro euros Euro", "1"),),
    "GBP": (("GBP gbp £", "1"),),
    "JPY": (("JPY jpy ¥ yen", "1"),),
    "INR": (("INR inr ₹ Rs Rs. rupee rupees", "1"),),
    "CHF": (("CHF", "1"),),
    "celsius": (("°C ℃ ^\\circ_C", "1"),),
    "fahrenheit": (("°F ℉", "1"),),
    "length/hour": (("mi/hour mph", "1609.344"), ("km/hour kph kmh", "1000")),
    "degree": (("° degree degrees ^\\circ", "1"),),
}
_UNITS = _units()
_CURRENCIES = {
    name: unit
    for name, unit in _UNITS.items()
    if unit.dimension.isupper()
    and unit.factor == 1
    and (not name.isalpha() or name.isupper() or name == "Rs")
}
# "in m" may be the beginning of anything.
_WORDS = {name: unit for name, unit in _UNITS.items() if len(name) > 2 and name.isalpha()}


# Words end where they end: "5 m" is not "5 men".
_END = r"(?![^\W_²³])"


def _any(names: Mapping[str, Unit], *, ends: str = _END) -> str:
    ordered = sorted(names, key=len, reverse=True)
    spelt = (f"(?i:{name})" if len(name) > 2 and name.isalpha() else re.escape(name) for name in ordered)
    return "|".join(
        one + (ends if name[-1].isalpha() else "") for one, name in zip(spelt, ordered, strict=True)
    )


_GAP = r"(?:\s|\\[,;! ]|~|-(?=[a-z]{2}))*(?:\\(?:text|textbf|mathrm)\s*\{\s*)?"
_ADVERBS = {
    "hour": "hourly",
    "day": "daily",
    "week": "weekly",
    "month": "monthly",
    "year": "(?:yearly|annual(?:ly)?)",
}
_SPAN = rf"(?:{'|'.join(_ADVERBS)}|minute)"
_PER = rf"(?:/|per\s+|an?\s+(?={_SPAN}))"
_RATE_BEHIND = re.compile(rf"\s*{_PER}\s*([^\W\d_]+)")
_AFTER = re.compile(
    rf"{_GAP}(?P<square>(?:square|cubic|sq\.?)\s+)?(?P<unit>{_any(_UNITS)})\}}?(?P<power>\^\{{?[23]\}}?|[²³])?"
    rf"(?:\s*(?P<per>{_PER})\s*(?P<by>[^\W\d_]+))?"
)
_BEFORE = re.compile(rf"(?<![^\W_])(?:{_any(_CURRENCIES, ends='')})\s?$")
# Looked for first: it is cheap, and before most numbers there is none.
_ENDS = {end for name in _CURRENCIES for end in (name[-1], name[-1].lower(), name[-1].upper())}
_ASKED = re.compile(
    rf"\b(?:how\s+(?:many|much)|number\s+of)\s+(?:more\s+|total\s+)?(?:\\?\$\s*)?(?=(?:square\s|cubic\s)?(?:{_any(_UNITS)}))"
    rf"|\bin\s+(?:total\s+|US\s+)?(?=(?:square\s|cubic\s)?(?:{_any(_WORDS)}))"
    rf"|\bin\s+(?=(?:{_any(_UNITS)})\s*(?:[?,)]|\.?$))"
    r"|\bwhat\s+(?=percent)",
    re.IGNORECASE,
)
_AGE = re.compile(r"\bhow\s+old\b|\bage\b", re.IGNORECASE)
_PERCENTAGE = re.compile(r"\bpercentage\b", re.IGNORECASE)
_RATE = re.compile(rf"\b(?:per|each|every|an?(?=\s+{_SPAN}\b))\s+([^\W\d_]+)", re.IGNORECASE)
_SINGULAR = {
    "hr": "hour",
    "hrs": "hour",
    "h": "hour",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "mins": "minute",
}


def _named(name: str) -> Unit:
    return _UNITS.get(name) or _UNITS[name.lower()]


def unit_before(text: str) -> tuple[Unit, int] | None:
    """The currency that a text ends with, and the length of what spells it."""
    if text.rstrip()[-1:] not in _ENDS:
        return None
    match = _BEFORE.search(text)
    return None if match is None else (_named(match[0].strip()), len(match[0]))


def unit_after(text: str, at: int, currency: Unit | None = None) -> tuple[Unit, int] | None:
    """The unit at a place behind a number, and where it ends.

    Parameters
    ----------
    currency : Unit, optional
        The one that stands before the number.
    """
    match = _AFTER.match(text, at)
    if match is None:
        return _per(currency, text, at) if currency else None
    unit = _named(match["unit"])
    line = text.rfind("\n", 0, at) + 1
    if match["unit"] == "$" and text.count("$", line, at) % 2:
        # It closes a formula.
        return None
    if currency is not None and unit.dimension != currency.dimension:
        return _per(currency, text, at)
    power, word = match["power"] or "", match["square"] or ""
    if power or word:
        cubic = "3" in power or "³" in power or word.startswith("c")
        shape, exponent = ("cubic", 3) if cubic else ("square", 2)
        unit = Unit(
            name=f"{shape} {unit.name}", dimension=f"{shape} {unit.dimension}", factor=unit.factor**exponent
        )
    end = match.end("per") if match["per"] and not match["by"] else match.end()
    return (_by(unit, match["by"]) if match["by"] else unit), end


def _per(unit: Unit, text: str, at: int) -> tuple[Unit, int] | None:
    match = _RATE_BEHIND.match(text, at)
    return None if match is None else (_by(unit, match[1]), match.end())


def _by(unit: Unit, word: str) -> Unit:
    lowered = _SINGULAR.get(word.lower(), word.lower().removesuffix("s"))
    return Unit(name=f"{unit.name}/{lowered}", dimension=f"{unit.dimension}/{lowered}", factor=unit.factor)


def asked(question: str) -> list[Unit]:
    """The units that a question asks for: "how many hours", "in km", "what percentage"."""
    found = [unit_after(question, match.end()) for match in _ASKED.finditer(question)]
    units = [one[0] for one in found if one is not None]
    units += [_UNITS["percent"]] if _PERCENTAGE.search(question) else []
    return [*units, _UNITS["year"]] if _AGE.search(question) else units


def rates_in(sentence: str, units: Mapping[str, Unit]) -> dict[str, Unit]:
    """The units that are asked for "per hour", "each bag" or "weekly"."""
    words = {word.lower().removesuffix("s") for word in _RATE.findall(sentence)}
    words |= {
        word for word, adverb in _ADVERBS.items() if re.search(rf"\b{adverb}\b", sentence, re.IGNORECASE)
    }
    if len(words) != 1:
        return {}
    word = words.pop()
    rates = [_by(unit, word) for unit in units.values() if "/" not in unit.dimension]
    return {rate.dimension: rate for rate in rates}


_SCALES: Final = {
    **{"hundred": 100, "thousand": 1000, "thousands": 1000, "dozen": 12, "million": 10**6, "millions": 10**6},
    **{"billion": 10**9, "billions": 10**9, "trillion": 10**12, "mio": 10**6, "millionen": 10**6},
    **{"bn": 10**9, "mn": 10**6},
}
_LETTERS: Final = {"k": 1000, "K": 1000, "M": 10**6, "B": 10**9}
_SCALE = re.compile(
    rf"\s?(?P<word>(?i:{'|'.join(sorted(_SCALES, key=len, reverse=True))}))\b\.?|(?P<letter>[kKMB])(?![\w^])"
)


def scale_after(text: str, at: int) -> tuple[Fraction, int] | None:
    """What a word or letter behind a number multiplies it by ("1.2 million", "5k"), and where it ends."""
    match = _SCALE.match(text, at)
    if match is None:
        return None
    factor = _SCALES[match["word"].lower()] if match["word"] else _LETTERS[match["letter"]]
    return Fraction(factor), match.end()
