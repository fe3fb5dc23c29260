"""What tokens cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from confroute.errors import MissingExtraError, PolicyError
from confroute.registry import register
from confroute.types import Usage


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million tokens.

    Raises
    ------
    PolicyError
        A price that is negative or not a finite number.

    Examples
    --------
    >>> Price(input_usd=1.0, output_usd=4.0).of(Usage(input_tokens=500_000, output_tokens=250_000))
    1.5
    """

    input_usd: float = 0.0
    output_usd: float = 0.0

    def __post_init__(self) -> None:
        try:
            fits = 0 <= self.input_usd < math.inf and 0 <= self.output_usd < math.inf
        except TypeError:  # a text, or nothing
            fits = False
        if not fits:
            msg = f"prices {self.input_usd!r} and {self.output_usd!r}: expected numbers, USD per million tokens, 0 or more"
            raise PolicyError(msg)

    def of(self, usage: Usage) -> float:
        """What these tokens cost, in USD."""
        return (usage.input_tokens * self.input_usd + usage.output_tokens * self.output_usd) / 1e6

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read a price written "IN,OUT".

        Raises
        ------
        PolicyError
            Not two numbers of 0 or more.

        Examples
        --------
        >>> Price.parse("0.15,0.60")
        Price(input_usd=0.15, output_usd=0.6)
        """
        try:
            first, second = (float(part) for part in text.split(","))
        except ValueError as error:
            msg = f"price {text!r}: expected two numbers, IN,OUT, in USD per million tokens"
            raise PolicyError(msg) from error
        return cls(input_usd=first, output_usd=second)

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
        Rates are today's for a call of a thousand tokens each way: tiers by length and discounts for cached prompts or batches are
        not applied.
        """
        try:
            import genai_prices
        except ImportError as error:
            raise MissingExtraError(extra="prices", needed_for=f"the list price of {model}") from error
        rates = []
        for usage in (
            genai_prices.Usage(input_tokens=1000, output_tokens=0),
            genai_prices.Usage(input_tokens=0, output_tokens=1000),
        ):
            try:
                rates.append(
                    float(genai_prices.calc_price(usage, model, provider_id=provider).total_price) * 1e3
                )
            except LookupError as error:
                msg = f"no list price of model {model!r}, provider {provider!r} ({error}): give Price(input_usd=..., output_usd=...)"
                raise PolicyError(msg) from error
        return cls(input_usd=round(rates[0], 9), output_usd=round(rates[1], 9))
