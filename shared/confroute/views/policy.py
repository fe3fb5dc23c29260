"""A policy in a notebook: its signals, their thresholds, and the guarantees of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

from confroute.certificate import Certificate
from confroute.decision import UNCALIBRATED
from confroute.display import register
from confroute.flow import Policy
from confroute.heads.base import TextHead, short_repr
from confroute.policy.cascade import Cascade
from confroute.policy.gate import Gate, TierThreshold
from confroute.policy.head_first import HeadFirst
from confroute.policy.threshold import Threshold
from confroute.policy.wrapper import Wrapper, nested_policies
from confroute.signals.base import shown_name
from confroute.views.html import Tile, counted, folded, fragment, table, tiles, wide
from confroute.views.scales import zones

_LONG = 120
_FAILURES = (
    ("nothing can be measured", "on_no_signal"),
    ("a draft is not whole", "on_unfinished"),
    ("an earlier tier fails", "on_edge_error"),
    ("the last tier fails", "on_cloud_error"),
)


def policy_text(policy: Cascade) -> str:
    """Write a cascade as one line: the tiers, each signal with its threshold and the source of that.

    Examples
    --------
    >>> from confroute.policy import Cascade
    >>> from confroute.signals import TokenLogprob
    >>> policy_text(Cascade.of(TokenLogprob(), 0.25))
    '<Cascade edge > cloud: token_logprob <= 0.25 nats (given)>'
    """
    gates = ", then ".join(f"{shown_name(gate.signal)} {_compared(gate)}" for gate in policy.gates)
    rules = f"; {len(policy.rules)} rule{'s' * (len(policy.rules) > 1)}" if policy.rules else ""
    return f"<Cascade {' > '.join(policy.tiers)}: {gates}{rules}>"


def _compared(gate: Gate) -> str:
    """The thresholds of a gate, the tiers' own behind that of all others."""
    limits = {f"for {own.tier} ": own.threshold for own in gate.by_tier}
    unit = gate.signal.range.unit.split()
    return ", ".join(
        " ".join([f"{whose}<=", f"{limit.value:.4g}", *unit, f"({limit.source})"])
        for whose, limit in {"": gate.threshold, **limits}.items()
    )


def policy_html(policy: Policy) -> str:
    """Draw a policy and its wrappers, outermost first, with the certificate of each threshold.

    Parameters
    ----------
    policy : Policy

    Returns
    -------
    str
        Self-contained HTML; see `confroute.views.decision.decision_html`.
    """
    return fragment(_parts(policy), label=f"policy: {type(policy).__name__}")


def _parts(policy: Policy) -> Iterable[str]:
    *around, last = nested_policies(policy)
    for wrapper in around:
        yield f"<p><b>{escape(type(wrapper).__name__)}</b>{escape(_settings(wrapper, without='policy'))}, around</p>"
    inner = getattr(last, "cascade", None)
    if inner is not None:
        yield f"<p><b>{escape(type(last).__name__)}</b>{escape(_settings(last, without='cascade'))}, before</p>"
        last = inner
    if not hasattr(last, "gates"):
        yield f"<p><b>{escape(type(last).__name__)}</b>{escape(_settings(last))}</p>"
        return
    yield from _cascade(last)


def _cascade(policy: Cascade) -> Iterable[str]:
    yield (
        f"<p><b>{escape(type(policy).__name__)}</b>: {' &rarr; '.join(map(escape, policy.tiers))}; the first answer that is certain "
        "enough is kept</p>"
    )
    thresholds = [threshold for gate in policy.gates for threshold in _thresholds(gate)]
    yield tiles(_tile(whose, threshold) for whose, threshold in thresholds)
    for at, gate in enumerate(policy.gates, start=1):
        yield from _gate(at, gate)
    yield from (
        f"<p class='q'>{escape(_certificate(whose, threshold.certificate))}</p>"
        for whose, threshold in thresholds
        if threshold.certificate is not None
    )
    title = f"{counted(len(policy.rules), 'rule')}, and what happens when something fails"
    yield folded(title, [table(("otherwise", ""), [*_otherwise(policy)])])
    if policy.provenance is not None:
        yield f"<p class='q'>Comes from {escape(policy.provenance.words)}</p>"


def _otherwise(policy: Cascade) -> Iterable[tuple[str, str]]:
    """What decides besides the gates, and what it does."""
    for rule in policy.rules:
        yield "rule, before any model", f"{type(rule).__name__}{_settings(rule)}"
    for words, name in _FAILURES:
        yield f"when {words}", str(getattr(policy, name))
    if policy.prefix is not None:
        yield "while a draft is written", f"Prefix{_settings(policy.prefix)}"
    if policy.lacking is not None:
        found = f"{shown_name(policy.lacking.signal)}: {_said(policy.lacking)}"
        yield "when a draft says that the context lacks the answer", found
    if policy.ask_for_help is not None:
        yield f"when a draft calls the tool {policy.ask_for_help.name}", "the next tier"
    if policy.returns == "majority":
        yield "when a draft is kept after samples", "the answer of most of them"
    if not policy.sticky:
        yield "when a call continues a later tier's answer", "the first tier is asked again"


def _gate(at: int, gate: Gate) -> Iterable[str]:
    """The scale of a gate in its zones, and those of calls with a tag and of tiers with thresholds of their own."""
    unit, name = escape(gate.signal.range.unit), escape(shown_name(gate.signal))
    source = gate.threshold.source if gate.threshold.certificate is None else "as promised"
    yield f"<p>{at}. <b>{name}</b> ({unit}): {escape(_said(gate))}; threshold {escape(source)}</p>"
    yield from _zones(gate, shown_name(gate.signal))
    for own in gate.by_tier:
        words = f"drafts of {own.tier} are {_said(own)}"
        yield f"<p>{escape(words)}; threshold {escape(own.threshold.source)}</p>"
        yield from _zones(own, f"{shown_name(gate.signal)} of {own.tier}")


def _zones(limits: Gate | TierThreshold, name: str) -> Iterable[str]:
    value = limits.threshold.value
    low, high = limits.grey or (value, value)
    yield wide(zones(low, high, alone=value, words=f"{name}: {_said(limits)}"))
    for group in limits.by_tag:
        value = group.threshold.value
        words = f"calls tagged {group.tag} are kept up to {value:.4g}"
        yield f"<p>{escape(words)}</p>{wide(zones(value, value, words=words))}"


def _said(gate: Gate | TierThreshold) -> str:
    value = gate.threshold.value
    if gate.grey is None:
        return f"kept up to {value:.4g}"
    low, high = gate.grey
    return (
        f"kept up to {low:.4g}, a further signal asked between {low:.4g} and {high:.4g}, and escalated above; where none can be "
        f"measured, kept up to {value:.4g}"
    )


def _thresholds(gate: Gate) -> Iterable[tuple[str, Threshold]]:
    for whose, threshold in gate.thresholds():
        yield f"{shown_name(gate.signal)}{', ' if whose else ''}{whose}", threshold


def _tile(whose: str, threshold: Threshold) -> Tile:
    if threshold.certificate is not None:
        return promise_tile(threshold.certificate, whose)
    if threshold.source == UNCALIBRATED:
        return Tile(name=whose, value="no promise", beside=["record your own calls and fit"])
    return Tile(name=whose, value="no promise", beside=[threshold.source])


def promise_tile(promise: Certificate, whose: str = "") -> Tile:
    """The bound that a threshold promises, large, with what was observed and how sure it is."""
    sure = "in expectation" if promise.delta is None else f"with {1 - promise.delta:.0%} confidence"
    return Tile(
        name=f"promised {promise.loss}{f' of {whose}' if whose else ''}",
        value=f"\u2264 {promise.alpha:.4g}",
        beside=[f"observed {promise.observed:.4g} on {promise.n} calls", sure],
    )


def _certificate(whose: str, promise: Certificate) -> str:
    ahead = "" if promise.horizon is None else f", also over the next {promise.horizon} calls as measured"
    return f"{whose}: {promise.words}{ahead} ({promise.date}, calibration columns {promise.data_hash[:12]})"


def _settings(value: Any, *, without: str = "") -> str:
    """The fields that differ from their defaults; long values by their type."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return ""
    shown = [
        f"{field.name}={_words(part)}"
        for field in dataclasses.fields(value)
        if field.repr
        and field.name != without
        and _differs(part := getattr(value, field.name), field.default)
    ]
    return f"({', '.join(shown)})" if shown else ""


def _differs(part: Any, default: Any) -> bool:
    """Arrays are no defaults, and comparing one gives an array."""
    return isinstance(part, np.ndarray) or bool(part != default)


def _words(value: Any) -> str:
    if isinstance(value, TextHead):  # as every `Head` is, too
        words = short_repr(value)
    elif isinstance(value, np.ndarray):
        words = f"array of shape {value.shape}"
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        words = type(value).__name__ + (_settings(value) or "()")
    elif isinstance(value, tuple):
        words = f"({', '.join(map(_words, value))}{',' * (len(value) == 1)})"
    else:
        words = repr(value)
    return words if len(words) <= _LONG else f"{type(value).__name__}(...)"


register(Cascade, text=policy_text, html=policy_html)
register(HeadFirst, html=policy_html)
register(Wrapper, html=policy_html)
