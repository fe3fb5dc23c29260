"""From graded questions to the demo's policy: measured on this machine, each time it is run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from confroute.decision import Decision
from confroute.demo.questions import PRIVATE_PATTERN, SYSTEM, Graded
from confroute.errors import CalibrationError
from confroute.hosts.router import Router
from confroute.models.text_model import TextModel
from confroute.policy import Cascade, Gate, KeepPrivate, Threshold
from confroute.signals import SelfConsistency, TokenLogprob

SAMPLES = 5
PRICE = 0.1
# More nats per token than any text has: everything is grey, so that both signals are measured.
_ALL_NATS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One graded question: the signals of the edge's answer, and whether each model was right."""

    signals: dict[str, float]
    edge_right: bool
    cloud_right: bool


def right(answer: str, graded: Graded) -> bool:
    """Whether an answer contains one of the accepted words.

    Examples
    --------
    >>> rome = Graded(question="?", accepted=("rome",))
    >>> right("It is Rome.", rome), right("Romes", rome)
    (True, False)
    """
    words = set(re.findall(r"\w+", answer.lower()))
    return any(accepted in words for accepted in graded.accepted)


def consistency() -> SelfConsistency:
    """The demo's second signal; a batch of samples takes a local model hardly longer than one."""
    return SelfConsistency(n=SAMPLES, step=SAMPLES)


def measuring() -> Cascade:
    """A policy that measures both signals of every draft and keeps it."""
    return Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=_ALL_NATS), grey=(0.0, _ALL_NATS)),
            Gate(signal=consistency(), threshold=Threshold(value=1.0)),
        ),
        on_no_signal="edge",
        on_edge_error="raise",
    )


def conversation(question: str) -> list[tuple[str, str]]:
    """The messages that a question is asked in."""
    return [("system", SYSTEM), ("user", question)]


def measure(
    edge: TextModel, cloud: TextModel, graded: Sequence[Graded], tick: Callable[[str], None]
) -> list[Row]:
    """Ask both models every question, grade both answers and measure the edge's.

    Parameters
    ----------
    tick : callable
        Told what was done, after each question.
    """
    router = Router(edge=edge, cloud=cloud, policy=measuring())
    rows = []
    for item in graded:
        messages = conversation(item.question)
        drafted, sure = router.ask(messages), router.ask(messages, route="cloud")
        rows.append(
            Row(
                signals=_signals(drafted.decision),
                edge_right=right(drafted.text, item),
                cloud_right=right(sure.text, item),
            )
        )
        tick(f"calibrating on {len(graded)} questions")
    return rows


def _signals(decision: Decision) -> dict[str, float]:
    return {name: measured.uncertainty for name, measured in decision.signals.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The demo's policy, and the signals that are not in it, with the reason of each."""

    policy: Cascade
    left_out: dict[str, str]


def fitted(rows: Sequence[Row]) -> Fitted:
    """A policy from graded rows: a gate for each signal that was measured and has a threshold worth using.

    The grey zone of the first one is where right and wrong answers overlap: from the most certain wrong answer to the
    least certain right one.

    Raises
    ------
    CalibrationError
        No signal could be measured, or none has a threshold that beats the cloud alone.
    """
    gates: list[Gate] = []
    left_out: dict[str, str] = {}
    for signal in (TokenLogprob(), consistency()):
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
    return Fitted(policy=Cascade(gates=tuple(gates), rules=rules, on_cloud_error="edge"), left_out=left_out)


def _threshold(rows: Sequence[Row], signal: str) -> Threshold:
    return Threshold.fit(
        [row.signals[signal] for row in rows],
        [float(row.edge_right) for row in rows],
        [float(row.cloud_right) for row in rows],
        price=PRICE,
    )


def _overlap(rows: Sequence[Row], gate: Gate) -> tuple[float, float] | None:
    signal, threshold = gate.signal.name, gate.threshold.value
    wrong = [row.signals[signal] for row in rows if signal in row.signals and not row.edge_right]
    good = [row.signals[signal] for row in rows if signal in row.signals and row.edge_right]
    if not wrong or not good or min(wrong) >= max(good):
        return None
    return min(*wrong, threshold), max(*good, threshold)
