"""The guarantee of a calibrated threshold: its bound, its data and its statistical method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from confroute.errors import PolicyError
from confroute.registry import register
from confroute.types import JSON

Loss: TypeAlias = Literal["regret", "error", "net", "selective", "shortfall"]
# "ltt-hoeffding-bentkus" is the method of files written before graded losses were bounded by betting.
Method: TypeAlias = Literal[
    "ltt-binomial",
    "ltt-hypergeometric",
    "ltt-hoeffding-bentkus",
    "ltt-betting",
    "ltt-prediction-powered",
    "crc",
]


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The guarantee of a threshold; the policy file and every decision that the threshold settles hold it.

    Attributes
    ----------
    loss : {"regret", "error", "net", "selective", "shortfall"}
        What is bounded; see `confroute.policy.guarantee.severity`.
    alpha : float
        The bound on the mean loss over calls.
    delta : float or None
        Probability, over the calibration rows, that the bound does not hold. None: it holds in expectation only.
    n : int
        Calibration rows.
    method : str
        "ltt-binomial", "ltt-hypergeometric", "ltt-betting", "ltt-prediction-powered" or "crc"; "ltt-hoeffding-bentkus" in older files.
    observed : float
        Mean loss on the calibration rows at the threshold.
    horizon : int or None
        Number of future calls whose measured mean loss keeps the bound as well; None: only the long-run mean does.
    date : str
        Day of the calibration, ISO 8601.
    data_hash : str
        SHA-256 of the calibration columns, to prove which rows they were.
    group : str or None
        The tag of the calls that it is about; None for all calls.
    labelled : int or None
        Where a judge graded the `n` rows: how many of them a person or a reference graded as well. None: all grades were taken as true.

    Raises
    ------
    PolicyError
        A delta outside (0, 1) or fewer than one row.
    """

    loss: Loss
    alpha: float
    delta: float | None
    n: int
    method: Method
    observed: float
    date: str
    data_hash: str
    horizon: int | None = None
    group: str | None = None
    labelled: int | None = None

    def __post_init__(self) -> None:
        if self.n < 1 or (self.delta is not None and not 0 < self.delta < 1):
            msg = f"a certificate of delta {self.delta} on {self.n} rows: expected delta in (0, 1) and at least one row"
            raise PolicyError(msg)

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "loss": self.loss,
            "alpha": self.alpha,
            "delta": self.delta,
            "n": self.n,
            "method": self.method,
            "observed": round(self.observed, 6),
            "horizon": self.horizon,
            "date": self.date,
            "data_hash": self.data_hash,
            "group": self.group,
            "labelled": self.labelled,
        }

    @property
    def words(self) -> str:
        """The guarantee in a few words, for a decision's reason."""
        level = "on average" if self.delta is None else f"with confidence {1 - self.delta:g}"
        graded = "" if self.labelled is None else f" graded by a judge, {self.labelled} of them by people too"
        return f"{self.loss} at most {self.alpha:g} {level}, {self.method} on {self.n} calls{graded}"
