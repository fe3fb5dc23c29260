"""What tokens cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from confroute.errors import MissingExtraError, PolicyError
from confroute.registry import register
from confroute.types import Usage

# The order of prices written as one text.
_WRITTEN = ("input_usd", "output_usd", "cached_usd", "cache_write_usd")


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million tokens.

    Parameters
    ----------
    input_usd, output_usd : float
    cached_usd : float, optional
        Of input tokens that the provider read from its prompt cache; by default as other input.
    cache_write_usd : float, optional
        Of input tokens that it wrote to it; by default as other input.
    reasoning_usd : float, optional
        Of output tokens that are reasoning; by default as other output.

    Raises
    ------
    PolicyError
        A price that is negative or not a finite number.

    Examples
    --------
    >>> Price(input_usd=1.0, output_usd=4.0).of(Usage(input_tokens=500_000, output_tokens=250_000))
    1.5
    >>> Price(input_usd=1.0, cached_usd=0.1).of(Usage(input_tokens=500_000, cached_tokens=400_000))
    0.14
    """

    input_usd: float = 0.0
    output_usd: float = 0.0
    cached_usd: float | None = None
    reasoning_usd: float | None = None
    cache_write_usd: float | None = None

    def __post_init__(self) -> None:
        optional = (self.cached_usd, self.reasoning_usd, self.cache_write_usd)
        prices = (self.input_usd, self.output_usd, *(price or 0.0 for price in optional))
        try:
            fits = all(0 <= price < math.inf for price in prices)
        except TypeError:  # a text, or nothing
            fits = False
        if not fits:
            listed = ", ".join(map(repr, prices))
            msg = f"prices {listed}: expected numbers, USD per million tokens, 0 or more"
            raise PolicyError(msg)

    def of(self, usage: Usage) -> float:
        """What these tokens cost, in USD."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        parts = (
            (cached, cached, self.input_usd, self.cached_usd),
            (usage.input_tokens - cached, usage.cache_write_tokens, self.input_usd, self.cache_write_usd),
            (usage.output_tokens, usage.reasoning_tokens, self.output_usd, self.reasoning_usd),
        )
        return sum(_priced(*part) for part in parts) / 1e6

    @property
    def cache_discount_usd(self) -> float:
        """What a million input tokens cost less where the provider reads them from its cache than where it does not hold them.

        A provider that charges for what it writes to its cache writes them anew then. 0 without a discount.

        Examples
        --------
        >>> Price(input_usd=2.0, cached_usd=0.5).cache_discount_usd, Price(input_usd=2.0).cache_discount_usd
        (1.5, 0.0)
        >>> Price(input_usd=2.0, cached_usd=0.5, cache_write_usd=2.5).cache_discount_usd
        2.0
        """
        anew = self.input_usd if self.cache_write_usd is None else self.cache_write_usd
        return 0.0 if self.cached_usd is None else max(0.0, anew - self.cached_usd)

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read a price written "IN,OUT", "IN,OUT,CACHED" or "IN,OUT,CACHED,WRITTEN", the last two of the prompt cache.

        Raises
        ------
        PolicyError
            Not two to four numbers of 0 or more.

        Examples
        --------
        >>> Price.parse("0.15,0.60") == Price(input_usd=0.15, output_usd=0.6)
        True
        >>> Price.parse("3,15,0.3,3.75").cache_write_usd
        3.75
        """
        try:
            given = [float(part) for part in text.split(",")]
            names = _WRITTEN[: len(given)]
            prices = dict(zip(names, given, strict=True))
            prices["output_usd"]
        except (KeyError, ValueError) as error:
            msg = f"price {text!r}: expected two to four numbers, IN,OUT[,CACHED[,WRITTEN]], in USD per million tokens"
            raise PolicyError(msg) from error
        return cls(**prices)

    @classmethod
    def listed(cls, model: str, *, provider: str | None = None) -> Price:
        """Look up the list price of a provider's model in the package `genai-prices`, without the network.

        Parameters
        ----------
        model : str
            The provider's name of it, such as "gpt-4o-mini".
        provider : str, optional
            Its id in the list, where several providers sell the model.

        Raises
        ------
        MissingExtraError
            `genai-prices` is not installed.
        PolicyError
            The list does not contain the model.

        Notes
        -----
        Rates are today's for a call of a thousand tokens of each kind: tiers by length and discounts for batches are not applied.
        """
        try:
            import genai_prices
        except ImportError as error:
            raise MissingExtraError(extra="prices", needed_for=f"the list price of {model}") from error
        counts = (
            {"input_tokens": 1000, "output_tokens": 0},
            {"input_tokens": 0, "output_tokens": 1000},
            {"input_tokens": 1000, "output_tokens": 0, "cache_read_tokens": 1000},
            {"input_tokens": 0, "output_tokens": 1000, "output_reasoning_tokens": 1000},
            {"input_tokens": 1000, "output_tokens": 0, "cache_write_tokens": 1000},
        )
        rates = []
        for count in counts:
            try:
                price = genai_prices.calc_price(genai_prices.Usage(**count), model, provider_id=provider)
            except LookupError as error:
                msg = f"no list price of model {model!r}, provider {provider!r} ({error}): give Price(input_usd=..., output_usd=...)"
                raise PolicyError(msg) from error
            rates.append(round(float(price.total_price) * 1e3, 9))
        full, output, cached, reasoning, written = rates
        return cls(
            input_usd=full,
            output_usd=output,
            cached_usd=None if cached == full else cached,
            reasoning_usd=None if reasoning == output else reasoning,
            cache_write_usd=None if written == full else written,
        )


def _priced(count: int, special: int, rate: float, special_rate: float | None) -> float:
    """`count` tokens at `rate`, the `special` ones among them at their own where they have one."""
    if special_rate is None:
        return count * rate
    special = min(special, count)
    return (count - special) * rate + special * special_rate
