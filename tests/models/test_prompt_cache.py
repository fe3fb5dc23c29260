"""How the networks of transformers are asked to keep keys and values."""

import pytest

from confroute.models.prompt_cache import held_in


class Before:
    """Until transformers 5.23."""

    def forward(self, input_ids=None, past_key_values=None, use_cache=None):
        """Not called."""


class Since:
    """From 5.24 on, where the older name is deprecated."""

    def forward(self, input_ids=None, cache=None, use_cache=None):
        """Not called."""


@pytest.mark.parametrize(("network", "name"), [(Before(), "past_key_values"), (Since(), "cache")])
def test_the_cache_goes_by_the_name_that_the_network_has(network, name):
    """Neither a warning nor an unknown argument, whichever version is installed."""
    kept = object()
    assert held_in(network, kept) == {name: kept, "use_cache": True}
