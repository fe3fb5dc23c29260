"""Decisions in a notebook: signals against the threshold, steps, and the reason in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from confroute.decision import UNANSWERED, Decision, Measurement
from confroute.display import register
from confroute.observe.trace import Trace
from confroute.views.html import counted, fragment, heading, table, text
from confroute.views.svg import bar, zone

_SHOWN = 200


def decision_text(decision: Decision) -> str:
    """Write a decision as one line: route, reason, seconds and tokens.

    Examples
    --------
    >>> from confroute.decision import Decision
    >>> decision_text(Decision(route="edge", stage="forced", reason="forced to edge by the caller"))
    '<Decision edge (forced): forced to edge by the caller; 0.00 s>'
    """
    tokens = ", ".join(
        f"{tier} {usage.input_tokens}+{usage.output_tokens} tokens" for tier, usage in decision.usage.items()
    )
    marks = "".join(f", {word}" for word in ("degraded", "private", "sampled") if getattr(decision, word))
    end = f"; {tokens}" if tokens else ""
    return f"<Decision {decision.route} ({decision.stage}{marks}): {decision.reason}; {decision.latency_s:.2f} s{end}>"


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
    marks = "".join(
        f" · <b>{word}</b>" for word in ("degraded", "private", "sampled") if getattr(decision, word)
    )
    rule = f" · rule {escape(decision.rule)}" if decision.rule else ""
    route = f"<b>{escape(decision.route)}</b>"
    settled = (
        f"<b>{decision.stage}</b> · {route} was asked last"
        if decision.stage in UNANSWERED
        else f"{route} answered · settled by {escape(decision.stage)}"
    )
    yield f"<p>{settled}{rule}{marks}</p>"
    yield f"<p>{escape(decision.reason)}</p>"
    if decision.signals or decision.skipped:
        yield _signals(decision)
    if decision.steps:
        yield _steps(decision)


def _signals(decision: Decision) -> str:
    rows = []
    for name, measured in decision.signals.items():
        limit = decision.threshold if name == decision.signal else None
        grey = decision.grey.get(name) if limit is None else None
        drawn = _bar(measured, limit) if grey is None else _zone(measured, grey)
        rows.append(
            f"<tr>{text(name)}<td>{drawn}</td><td class='n'>{_compared(measured, limit, grey)}</td></tr>"
        )
    rows += [
        f"<tr>{text(name)}<td colspan='2' class='q t'>not measured: {escape(why)}</td></tr>"
        for name, why in decision.skipped.items()
    ]
    marks = [f"mark: threshold, {decision.threshold_source}"] if decision.threshold_source else []
    if decision.grey.keys() - {decision.signal}:
        marks.append("two marks: between them a further signal is asked")
    notes = f" ({'; '.join(marks)})" if marks else ""
    head = heading("signal") + heading(f"uncertainty{notes}") + heading("value", right=True)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _compared(measured: Measurement, limit: float | None, grey: tuple[float, float] | None) -> str:
    value = f"{measured.uncertainty:.4g}"
    if limit is not None:
        return f"{value} {'&le;' if measured.uncertainty <= limit else '&gt;'} {limit:.4g}"
    return value if grey is None else f"{grey[0]:.4g} &lt; {value} &le; {grey[1]:.4g}"


def _bar(measured: Measurement, limit: float | None) -> str:
    """Empty without a threshold: the length would have no meaning."""
    if limit is None:
        return ""
    return bar(
        measured.uncertainty, limit, words=f"uncertainty {measured.uncertainty:.4g}, threshold {limit:.4g}"
    )


def _zone(measured: Measurement, grey: tuple[float, float]) -> str:
    words = f"a further signal is asked between {grey[0]:.4g} and {grey[1]:.4g}"
    return zone(measured.uncertainty, grey, words=f"uncertainty {measured.uncertainty:.4g}, {words}")


def _steps(decision: Decision) -> str:
    rows = [
        (
            step.kind
            + (f" x {step.n}" if step.n > 1 else "")
            + (f" ({step.cache_hits} cached)" if step.cache_hits else ""),
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
    shown = decisions[-_SHOWN:]
    rows = []
    for number, decision in enumerate(shown, start=len(decisions) - len(shown) + 1):
        measured = decision.signals.get(decision.signal or "")
        bar = "" if measured is None else _bar(measured, decision.threshold)
        tokens_in, tokens_out = _tokens(decision)
        marks = "".join(
            f" ({word})" for word in ("degraded", "private", "sampled") if getattr(decision, word)
        )
        rows.append(
            f"<tr><td class='n'>{number}</td><td><b>{escape(outcome(decision))}</b>{marks}</td><td>{bar}</td>"
            f"{text(decision.reason)}<td class='n'>{decision.latency_s:.2f}</td>"
            f"<td class='n'>{tokens_in}+{tokens_out}</td></tr>"
        )
    names = ("#", "route", "uncertainty (mark: threshold)", "why", "seconds", "tokens")
    head = "".join(heading(name, right=name in ("#", "seconds", "tokens")) for name in names)
    yield f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    if len(shown) < len(decisions):
        yield f"<p class='q'>the first {len(decisions) - len(shown)} are not shown</p>"


register(Decision, text=decision_text, html=decision_html)
register(Trace, text=trace_text, html=trace_html)
