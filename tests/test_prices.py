"""Prices: given, parsed and listed."""

import sys

import pytest

from confroute.errors import MissingExtraError, PolicyError
from confroute.prices import Price
from confroute.types import Usage


def test_list_prices_are_a_millions(monkeypatch):
    """A listed model costs what the list says for a million tokens each way; no network is used."""
    price = Price.listed("gpt-4o-mini", provider="openai")
    assert (price.input_usd, price.output_usd) == (0.15, 0.6)
    assert price.of(Usage(input_tokens=2_000_000, output_tokens=1_000_000)) == pytest.approx(0.9)
    with pytest.raises(PolicyError, match="no list price of model 'nothing'"):
        Price.listed("nothing")
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(MissingExtraError, match=r"confroute\[prices\]"):
        Price.listed("gpt-4o-mini")


@pytest.mark.parametrize("text", ["", "1", "1,x", "-1,2", "nan,1"])
def test_what_is_no_price_is_refused(text):
    """Two numbers, neither below 0."""
    with pytest.raises(PolicyError, match=r"expected"):
        Price.parse(text)


@pytest.mark.parametrize("given", ["0.15", None])
def test_a_price_that_is_no_number_is_refused(given):
    """Also a number in quotes."""
    with pytest.raises(PolicyError, match="expected numbers, USD per million tokens"):
        Price(input_usd=given)


@pytest.mark.parametrize("bad", ["nan,1", "1,inf", "-1,1"])
def test_prices_are_finite(bad):
    """An infinite price would make a call without tokens cost no number at all."""
    with pytest.raises(PolicyError, match="0 or more"):
        Price.parse(bad)
