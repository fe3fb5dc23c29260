"""What a policy shows of itself in a notebook."""

from dataclasses import fields, replace

import pytest

from confroute import SelfConsistency, TokenLogprob
from confroute.policy import Cascade, Gate, HelpTool, KeepPrivate, Prefix, Provenance, Threshold
from confroute.policy.provenance import RecordedModel
from confroute.views.policy import policy_html

PLAIN = Cascade.of(TokenLogprob(), 0.3)
OTHER = {
    "gates": (Gate(signal=SelfConsistency(), threshold=Threshold(value=0.3)),),
    "rules": (KeepPrivate(),),
    "tiers": ("small", "large"),
    "prefix": Prefix(commit=Threshold(value=0.1), cut=Threshold(value=1.0)),
    "on_no_signal": "raise",
    "on_unfinished": "judge",
    "on_edge_error": "raise",
    "on_cloud_error": "edge",
    "returns": "majority",
    "lacking": None,
    "ask_for_help": HelpTool(),
    "sticky": False,
    "provenance": Provenance(
        edge=RecordedModel(names=("small",)),
        cloud=None,
        kind=None,
        n=3,
        date="2026-11-25",
        data_hash="0" * 64,
        version="1",
        uncertainty=(),
    ),
}


WORDS = {
    "gates": "self_consistency",
    "rules": "KeepPrivate",
    "tiers": "small &rarr; large",
    "prefix": "Prefix(",
    "on_no_signal": "raise",
    "on_unfinished": "judge",
    "on_edge_error": "raise",
    "on_cloud_error": ">edge<",
    "lacking": "the context lacks the answer",
    "returns": "the answer of most of them",
    "ask_for_help": "calls the tool ask_larger_model",
    "sticky": "the first tier is asked again",
    "provenance": "fitted on 3 calls",
}


@pytest.mark.parametrize("name", [one.name for one in fields(Cascade)])
def test_every_setting_of_a_cascade_is_shown(name):
    """Each changes where calls go, so none may look like its default."""
    shown, plain = (policy_html(one) for one in (replace(PLAIN, **{name: OTHER[name]}), PLAIN))
    if name == "lacking":
        # The only one whose default is shown.
        shown, plain = plain, shown
    assert shown.count(WORDS[name]) > plain.count(WORDS[name])
