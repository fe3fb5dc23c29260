"""Decisions in a notebook: signals against the threshold, steps, and the reason in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias

from confroute.decision import UNANSWERED, Decision, Measurement, Routed, Step
from confroute.display import register
from confroute.observe.trace import Trace
from confroute.policy.verdict import compared, told_apart
from confroute.types import Usage
from confroute.views.html import Tile, coded, counted, folded, fragment, heading, table, text, tiles, wide
from confroute.views.scales import Span, bar, timeline, zones

Ends: TypeAlias = "tuple[float, float]"

_SHOWN = 200


def decision_text(decision: Decision) -> str:
    """Write a decision as one line: route, reason, seconds and tokens.

    Examples
    --------
    >>> from confroute.decision import Decision
    >>> decision_text(Decision(route="edge", stage="forced", reason="forced to edge by the caller"))
    '<Decision edge (forced): forced to edge by the caller; 0.00 s>'
    """
    return _line("Decision", decision)


def _line(name: str, decision: Decision) -> str:
    tokens = ", ".join(
        f"{tier} {usage.input_tokens}+{usage.output_tokens} tokens" for tier, usage in decision.usage.items()
    )
    marks = "".join(f", {word}" for word in ("degraded", "private", "sampled") if getattr(decision, word))
    end = f"; {tokens}" if tokens else ""
    return f"<{name} {decision.route} ({decision.stage}{marks}): {decision.reason}; {decision.latency_s:.2f} s{end}>"


def decision_html(decision: Decision) -> str:
    """Draw a decision: the route, the reason, each signal as a bar against the threshold, each step's tokens and time.

    Parameters
    ----------
    decision : Decision

    Returns
    -------
    str
        Self-contained HTML in the page's light or dark colours, readable without colour.
    """
    return fragment(_decision_parts(decision), label=f"decision: {decision.route}")


def _decision_parts(decision: Decision) -> Iterable[str]:
    marks = "".join(f" · {coded(word)}" for word in marks_of(decision))
    rule = f" · rule {escape(decision.rule)}" if decision.rule else ""
    end = outcome(decision)
    asked = f" · {escape(decision.route)} was asked last" if end in UNANSWERED else ""
    yield f"<p><b>{escape(decision.reason)}</b></p>"
    yield tiles(_tiles(decision))
    yield f"<p>settled by {escape(decision.stage)}{asked}{rule}{marks}</p>"
    if decision.signals or decision.skipped:
        yield _signals(decision)
    if decision.steps:
        yield wide(timeline([*spans(decision)]))
        yield folded("Steps in numbers", [_steps(decision)])


def marks_of(decision: Decision) -> list[str]:
    """What else is to be known of a decision: whether its answer is degraded, kept private or a sample.

    Examples
    --------
    >>> marks_of(Decision(route="edge", stage="rule", reason="private", private=True))
    ['private']
    """
    return [word for word in ("degraded", "private", "sampled") if getattr(decision, word)]


def _tiles(decision: Decision) -> Iterable[Tile]:
    end = outcome(decision)
    yield Tile(name="outcome" if end in UNANSWERED else "answered by", value=end, outcome=end)
    if decision.uncertainty is not None and decision.threshold is not None:
        side = "up to" if decision.uncertainty <= decision.threshold else "above"
        value, threshold = told_apart(decision.uncertainty, decision.threshold, digits=4)
        limit = f"{side} the threshold {threshold}"
        beside = [decision.signal or "", limit, decision.threshold_source or ""]
        yield Tile(name="uncertainty", value=value, beside=[*filter(None, beside)])
    if decision.steps:
        tiers = dict.fromkeys(step.tier for step in decision.steps if step.tier)
        spent = {t: sum(s.latency_s for s in decision.steps if s.tier == t) for t in tiers}
        beside = [f"{tier} {seconds:.2f}" for tier, seconds in spent.items()]
        yield Tile(name="seconds", value=f"{decision.latency_s:.2f}", beside=beside)
    if decision.usage:
        beside = [f"{tier} {in_and_out(used)}" for tier, used in decision.usage.items()]
        yield Tile(name="tokens", value=f"{sum(_tokens(decision)):,}", beside=beside)


def _signals(decision: Decision) -> str:
    rows = []
    for name, measured in decision.signals.items():
        limit = decision.threshold if name == decision.signal else None
        grey = (limit, limit) if limit is not None else decision.grey.get(name)
        drawn = "" if grey is None else _zones(measured, grey)
        rows.append(f"<tr>{text(name)}<td>{drawn}</td><td class='n'>{_compared(measured, grey)}</td></tr>")
    rows += [
        f"<tr>{text(name)}<td colspan='2' class='q t'>not measured: {escape(why)}</td></tr>"
        for name, why in decision.skipped.items()
    ]
    head = heading("signal") + heading("uncertainty") + heading("value", right=True)
    return wide(f"<table class='stack'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")


def _compared(measured: Measurement, grey: Ends | None) -> str:
    value = f"{measured.uncertainty:.4g}"
    if grey is None:
        return value
    low, high = grey
    if low == high:
        sign = "&le;" if measured.uncertainty <= high else "&gt;"
        return compared(measured.uncertainty, sign, high, digits=4)
    return f"{low:.4g} &lt; {value} &le; {high:.4g}"


def _zones(measured: Measurement, grey: Ends) -> str:
    low, high = grey
    limits = (
        f"threshold {high:.4g}"
        if low == high
        else f"a further signal is asked between {low:.4g} and {high:.4g}"
    )
    return zones(
        low, high, value=measured.uncertainty, words=f"uncertainty {measured.uncertainty:.4g}, {limits}"
    )


def _bar(measured: Measurement, limit: float | None) -> str:
    """Empty without a threshold: the length would have no meaning."""
    if limit is None:
        return ""
    return bar(
        measured.uncertainty, limit, words=f"uncertainty {measured.uncertainty:.4g}, threshold {limit:.4g}"
    )


def spans(decision: Decision) -> Iterable[Span]:
    """Yield the rows of a decision's timeline: its steps one after the other; those of a group begin together.

    Examples
    --------
    >>> decision = Decision(
    ...     route="edge",
    ...     stage="draft",
    ...     reason="kept",
    ...     steps=(Step(kind="draft", tier="edge", latency_s=0.5),),
    ... )
    >>> [(span.words, span.seconds) for span in spans(decision)]
    [('draft · edge', 0.5)]
    """
    end, starts = 0.0, dict[int, float]()
    for step in decision.steps:
        start = end if step.group is None else starts.setdefault(step.group, end)
        end = max(end, start + step.latency_s)
        used = step.usage
        yield Span(
            words=" · ".join(filter(None, (_kind(step), step.tier, step.error))),
            outcome=step.tier or "",
            start_s=start,
            seconds=step.latency_s,
            tokens=None if used is None else (used.input_tokens, used.output_tokens),
            failed=step.error is not None,
        )


def _kind(step: Step) -> str:
    cached = f" ({step.cache_hits} cached)" if step.cache_hits else ""
    return step.kind + (f" x {step.n}" if step.n > 1 else "") + cached


def _steps(decision: Decision) -> str:
    rows = [
        (
            _kind(step),
            step.tier or "",
            step.model or "",
            step.usage.input_tokens if step.usage else None,
            step.usage.output_tokens if step.usage else None,
            step.latency_s,
            step.attempts,
            step.error or "",
        )
        for step in decision.steps
    ]
    rows.append(
        ("all", "", "", *_tokens(decision), decision.latency_s, sum(s.attempts for s in decision.steps), "")
    )
    return table(("step", "tier", "model", "tokens in", "tokens out", "seconds", "attempts", "error"), rows)


def in_and_out(used: Usage) -> str:
    """Tokens in words.

    Examples
    --------
    >>> in_and_out(Usage(input_tokens=900, output_tokens=20, cached_tokens=800))
    '900 in (800 from the cache), 20 out'
    """
    cached = f" ({used.cached_tokens} from the cache)" if used.cached_tokens else ""
    return f"{used.input_tokens} in{cached}, {used.output_tokens} out"


def _tokens(decision: Decision) -> tuple[int, int]:
    used = decision.usage.values()
    return sum(u.input_tokens for u in used), sum(u.output_tokens for u in used)


def outcome(decision: Decision) -> str:
    """The tier that answered, or how a call that got no whole answer ended: its `route` is only the tier asked last.

    Examples
    --------
    >>> from confroute.decision import Decision
    >>> outcome(Decision(route="cloud", stage="failed", reason="the call failed (TimeoutError)"))
    'failed'
    """
    return decision.stage if decision.stage in UNANSWERED else decision.route


def trace_text(decisions: Sequence[Decision]) -> str:
    """Write many decisions as one line.

    Examples
    --------
    >>> from confroute.decision import Decision
    >>> trace_text([Decision(route="edge", stage="draft", reason="kept")])
    '<1 decision: edge 1; 0.00 s>'
    """
    counts = Counter(map(outcome, decisions))
    routes = ", ".join(f"{route} {count}" for route, count in sorted(counts.items()))
    seconds = sum(decision.latency_s for decision in decisions)
    return f"<{counted(len(decisions), 'decision')}{': ' + routes if routes else ''}; {seconds:.2f} s>"


def trace_html(decisions: Sequence[Decision]) -> str:
    """Draw many decisions: shares by route and a row with a bar for each; the last 200 are shown."""
    return fragment(_trace_parts(decisions), label=counted(len(decisions), "decision"))


def _trace_parts(decisions: Sequence[Decision]) -> Iterable[str]:
    yield f"<p>{escape(trace_text(decisions)[1:-1])}</p>"
    if not decisions:
        return
    counts = Counter(map(outcome, decisions))
    yield tiles(
        Tile(
            name=end,
            value=f"{count / len(decisions):.0%}",
            outcome=end,
            beside=[f"{count} of {len(decisions)}"],
        )
        for end, count in sorted(counts.items(), key=lambda item: (item[0] != "edge", item[0]))
    )
    shown = decisions[-_SHOWN:]
    first = len(decisions) - len(shown) + 1
    rows = "".join(f"<tr>{''.join(call_cells(at, one))}</tr>" for at, one in enumerate(shown, start=first))
    head = "".join(heading(name, right=name in ("#", "seconds", "tokens")) for name in CALL_HEAD)
    yield wide(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    if len(shown) < len(decisions):
        yield f"<p class='q'>the first {len(decisions) - len(shown)} are not shown</p>"


# The columns of `call_cells`.
CALL_HEAD = ("#", "answered by", "uncertainty (mark: threshold)", "why", "seconds", "tokens")


def call_cells(number: int, decision: Decision) -> list[str]:
    """Write a decision as the cells of a row: its number, who answered, the bar of its uncertainty, the reason, seconds and tokens."""
    measured = decision.signals.get(decision.signal or "")
    drawn = "" if measured is None else _bar(measured, decision.threshold)
    key = "" if measured is None else f"{measured.uncertainty:.6g}"
    tokens_in, tokens_out = _tokens(decision)
    marks = "".join(f" {coded(word)}" for word in marks_of(decision))
    return [
        f"<td class='n'>{number}</td>",
        f"<td>{coded(outcome(decision))}{marks}</td>",
        f"<td data-key='{key}'>{drawn}</td>",
        text(decision.reason),
        f"<td class='n'>{decision.latency_s:.2f}</td>",
        f"<td class='n' data-key='{tokens_in + tokens_out}'>{tokens_in}+{tokens_out}</td>",
    ]


register(Decision, text=decision_text, html=decision_html)
register(
    Routed,
    text=lambda routed: _line("Routed", routed.decision),
    html=lambda routed: decision_html(routed.decision),
)
register(Trace, text=trace_text, html=trace_html)
