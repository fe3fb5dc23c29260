"""A policy in a notebook: its signals, their thresholds, and the guarantees of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from html import escape
from typing import Any

from confroute.certificate import Certificate
from confroute.display import register
from confroute.flow import Policy
from confroute.policy.cascade import Cascade
from confroute.policy.gate import Gate
from confroute.policy.head_first import HeadFirst
from confroute.policy.threshold import Threshold
from confroute.policy.wrapper import Wrapper, nested_policies
from confroute.views.html import fragment, table
from confroute.views.svg import bar

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
    gates = ", then ".join(
        " ".join(
            [
                g.signal.name,
                "<=",
                f"{g.threshold.value:.4g}",
                *g.signal.range.unit.split(),
                f"({g.threshold.source})",
            ]
        )
        for g in policy.gates
    )
    rules = f"; {len(policy.rules)} rule{'s' * (len(policy.rules) > 1)}" if policy.rules else ""
    return f"<Cascade {' > '.join(policy.tiers)}: {gates}{rules}>"


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
    head = ("", "signal", "keeps up to", "unit", "asks further between", "threshold from")
    yield table(head, [_gate(at, gate) for at, gate in enumerate(policy.gates, start=1)])
    for gate in policy.gates:
        yield from _promises(gate)
    rules = [f"{type(rule).__name__}{_settings(rule)}" for rule in policy.rules]
    rows = [("rule, before any model", rule) for rule in rules]
    rows += [(f"when {words}", str(getattr(policy, name))) for words, name in _FAILURES]
    if policy.prefix is not None:
        rows.append(("while a draft is written", f"Prefix{_settings(policy.prefix)}"))
    if policy.provenance is not None:
        rows.append(("comes from", policy.provenance.words))
    yield table(("otherwise", ""), rows)


def _gate(at: int, gate: Gate) -> tuple[str | int, ...]:
    grey = "-" if gate.grey is None else f"{gate.grey[0]:.4g} and {gate.grey[1]:.4g}"
    unit = gate.signal.range.unit
    return (at, gate.signal.name, f"{gate.threshold.value:.4g}", unit, grey, gate.threshold.source)


def _promises(gate: Gate) -> Iterable[str]:
    thresholds: list[tuple[str, Threshold]] = [("", gate.threshold)]
    thresholds += [(f", calls tagged {group.tag}", group.threshold) for group in gate.by_tag]
    for whose, threshold in thresholds:
        name = escape(gate.signal.name + whose)
        if threshold.certificate is None:
            yield f"<p class='q'>{name}: no promise; record your own calls and fit</p>"
        else:
            yield f"<p><b>Promised</b> of {name}: {_certificate(threshold.certificate)}</p>"


def _certificate(promise: Certificate) -> str:
    ahead = "" if promise.horizon is None else f", also over the next {promise.horizon} calls as measured"
    words = f"{promise.loss} {promise.observed:.4g}, bound {promise.alpha:.4g}"
    drawn = bar(promise.observed, promise.alpha, words=words)
    return (
        f"{escape(promise.words)}{ahead}<br>{drawn} {promise.observed:.4g} on the calibration calls, bound {promise.alpha:.4g} "
        f"<span class='q'>({escape(promise.date)}, data {escape(promise.data_hash[:12])})</span>"
    )


def _settings(value: Any, *, without: str = "") -> str:
    """The fields that differ from their defaults; long values by their type."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return ""
    shown = [
        f"{field.name}={_words(part)}"
        for field in dataclasses.fields(value)
        if field.name != without and (part := getattr(value, field.name)) != field.default
    ]
    return f"({', '.join(shown)})" if shown else ""


def _words(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        words = type(value).__name__ + (_settings(value) or "()")
    elif isinstance(value, tuple):
        words = f"({', '.join(map(_words, value))}{',' * (len(value) == 1)})"
    else:
        words = repr(value)
    return words if len(words) <= _LONG else f"{type(value).__name__}(...)"


register(Cascade, text=policy_text, html=policy_html)
register(HeadFirst, html=policy_html)
register(Wrapper, html=policy_html)
