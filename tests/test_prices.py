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


@pytest.mark.parametrize("text", ["", "1", "1,x", "-1,2", "nan,1", "1,2,3,4,5", "1,2,-3"])
def test_what_is_no_price_is_refused(text):
    """Two to four numbers, none below 0."""
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


def test_the_caches_prices_stand_behind_the_others():
    """As many of them as there are."""
    assert Price.parse("3,15,0.3") == Price(input_usd=3, output_usd=15, cached_usd=0.3)
    assert Price.parse("3,15,0.3,3.75") == Price(
        input_usd=3, output_usd=15, cached_usd=0.3, cache_write_usd=3.75
    )


@pytest.mark.parametrize(
    ("given", "discount"),
    [({}, 0), ({"cached_usd": 1}, 2), ({"cached_usd": 1, "cache_write_usd": 4}, 3), ({"cached_usd": 5}, 0)],
)
def test_the_discount_is_what_the_cache_saves(given, discount):
    """Against a prompt that it does not hold, which may be written anew; never below 0."""
    assert Price(input_usd=3, **given).cache_discount_usd == discount
