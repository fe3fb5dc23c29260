"""The demo's fit: gates for signals that are worth one, and a grey zone where right and wrong overlap."""

import pytest

from confroute.demo.calibrate import GradedAnswer, fit_policy
from confroute.errors import CalibrationError


def rows(nll, agreement, right):
    """Graded rows of both signals; the cloud is always right."""
    return [
        GradedAnswer(
            signals={"token_logprob": u, "self_consistency": c}, edge_right=bool(r), cloud_right=True
        )
        for u, c, r in zip(nll, agreement, right, strict=True)
    ]


RIGHT = [1, 1, 1, 0, 1, 0, 0, 0]
NLL = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def test_both_signals_are_worth_a_gate():
    """The first gate's grey zone reaches from the most certain wrong to the least certain right answer."""
    policy = fit_policy(rows(NLL, [0, 0, 0, 1, 0, 1, 1, 1], RIGHT)).policy
    first, second = policy.gates
    assert first.grey == (min(0.4, first.threshold.value), 0.5)
    assert (second.signal.name, second.threshold.value, second.grey) == ("self_consistency", 0.5, None)


def test_a_signal_that_tells_nothing_is_left_out():
    """Samples that always agree separate nothing: no gate, no grey zone, and the reason is kept."""
    found = fit_policy(rows(NLL, [0] * 8, RIGHT))
    assert [gate.signal.name for gate in found.policy.gates] == ["token_logprob"]
    assert found.policy.gates[0].grey is None
    assert "no threshold beats the cloud alone" in found.left_out["self_consistency"]


def test_nothing_to_route_by_raises():
    """An edge that is never right has no threshold."""
    with pytest.raises(CalibrationError, match=r"token_logprob: .*; self_consistency: "):
        fit_policy(rows(NLL, [0] * 8, [0] * 8))
