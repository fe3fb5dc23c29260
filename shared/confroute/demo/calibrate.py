"""Fit the demo's policy to graded questions, measured on this machine at every run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from confroute.decision import Decision
from confroute.demo.questions import PRIVATE_PATTERN, SYSTEM, GradedQuestion
from confroute.errors import CalibrationError
from confroute.hosts.router import Router
from confroute.models.text_model import TextModel
from confroute.policy import Cascade, Gate, KeepPrivate, Threshold
from confroute.signals import SelfConsistency, TokenLogprob

SAMPLES = 5
PRICE = 0.1
# More nats per token than any text has: every value is in the grey zone, so that both signals are measured.
_ALL_NATS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedAnswer:
    """The signals of the edge's answer to one question, and whether each model was right."""

    signals: dict[str, float]
    edge_right: bool
    cloud_right: bool


def is_right(answer: str, accepted: Sequence[str]) -> bool:
    """Tell whether an answer contains one of the accepted words.

    Examples
    --------
    >>> is_right("It is Rome.", ["rome"]), is_right("Romes", ["rome"]), is_right("187,863", ["187863"])
    (True, False, True)
    """
    words = set(re.findall(r"\w+", re.sub(r"(?<=\d),(?=\d{3})", "", answer.lower())))
    return not words.isdisjoint(accepted)


def consistency_signal() -> SelfConsistency:
    """Make the demo's second signal; a batch of samples takes a local model hardly longer than one."""
    return SelfConsistency(n=SAMPLES, step=SAMPLES)


def measuring_policy() -> Cascade:
    """Make a policy that measures both signals of every draft and keeps the draft."""
    return Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=_ALL_NATS), grey=(0.0, _ALL_NATS)),
            Gate(signal=consistency_signal(), threshold=Threshold(value=1.0)),
        ),
        on_no_signal="edge",
        on_edge_error="raise",
    )


def conversation(question: str) -> list[tuple[str, str]]:
    """Make the messages of a question."""
    return [("system", SYSTEM), ("user", question)]


def measuring_router(edge: TextModel, cloud: TextModel) -> Router:
    """Make a router that measures every draft and keeps it."""
    return Router(edge=edge, cloud=cloud, policy=measuring_policy())


def measure(router: Router, item: GradedQuestion) -> GradedAnswer:
    """Ask both models a question, grade both answers and measure the edge's.

    Parameters
    ----------
    router : Router
        That of `measuring_router`.
    """
    messages = conversation(item.question)
    edge_answer, cloud_answer = router.ask(messages), router.ask(messages, route="cloud")
    return GradedAnswer(
        signals=_signals(edge_answer.decision),
        edge_right=is_right(edge_answer.text, item.accepted),
        cloud_right=is_right(cloud_answer.text, item.accepted),
    )


def _signals(decision: Decision) -> dict[str, float]:
    return {name: measured.uncertainty for name, measured in decision.signals.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFit:
    """The demo's policy, and the reason for each signal that is not in it."""

    policy: Cascade
    left_out: dict[str, str]


def fit_policy(rows: Sequence[GradedAnswer]) -> DemoFit:
    """Fit a policy to graded answers: a gate for each signal that was measured and has a threshold worth using.

    The grey zone of the first gate is where right and wrong answers overlap: from the most certain wrong answer to the
    least certain right one.

    Raises
    ------
    CalibrationError
        No signal could be measured, or none has a threshold that beats the cloud alone.
    """
    gates: list[Gate] = []
    left_out: dict[str, str] = {}
    for signal in (TokenLogprob(), consistency_signal()):
        measured = [row for row in rows if signal.name in row.signals]
        try:
            threshold = _threshold(measured, signal.name)
        except CalibrationError as error:
            left_out[signal.name] = str(error)
            continue
        gates.append(Gate(signal=signal, threshold=threshold))
    if not gates:
        msg = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise CalibrationError(msg)
    if len(gates) > 1:
        gates[0] = replace(gates[0], grey=_overlap(rows, gates[0]))
    rules = (KeepPrivate(patterns=(PRIVATE_PATTERN,)),)
    return DemoFit(policy=Cascade(gates=tuple(gates), rules=rules, on_cloud_error="edge"), left_out=left_out)


def _threshold(rows: Sequence[GradedAnswer], signal: str) -> Threshold:
    return Threshold.fit(
        [row.signals[signal] for row in rows],
        [float(row.edge_right) for row in rows],
        [float(row.cloud_right) for row in rows],
        price=PRICE,
    )


def _overlap(rows: Sequence[GradedAnswer], gate: Gate) -> tuple[float, float] | None:
    signal, threshold = gate.signal.name, gate.threshold.value
    wrong = [row.signals[signal] for row in rows if signal in row.signals and not row.edge_right]
    good = [row.signals[signal] for row in rows if signal in row.signals and row.edge_right]
    if not wrong or not good or min(wrong) >= max(good):
        return None
    return min(*wrong, threshold), max(*good, threshold)
