"""What a policy was fitted on: the models, their answers' lengths, the data, and how the uncertainty was distributed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from confroute.errors import PolicyError
from confroute.registry import register
from confroute.stats.arrays import Array
from confroute.types import JSON

# Enough that the distance of two distributions is known to 1 %.
_POINTS = 100
_LATEST = re.compile(r"(:latest|-latest|\.gguf)$")
_DATE = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")


class ProvenanceWarning(UserWarning):
    """A policy is used with other models, or shorter answers, than those that it was fitted on."""


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedModel:
    """One tier's model as it answered the recorded calls.

    Attributes
    ----------
    names : tuple of str
        All names by which it is known: as it was asked for, and as its server answered. Empty if none is known.
    max_tokens : int or None
        The longest answer that it was asked for, in tokens; None if the run does not say.
    longest : int or None
        Tokens of its longest answer; None if they were not counted.
    cut_off : float in [0, 1]
        Share of its answers that ended at their length limit.

    Raises
    ------
    PolicyError
        A share outside [0, 1].
    """

    names: tuple[str, ...] = ()
    max_tokens: int | None = None
    longest: int | None = None
    cut_off: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.cut_off <= 1:
            msg = f"cut_off is {self.cut_off}: expected a share in [0, 1]"
            raise PolicyError(msg)

    def is_called(self, name: str) -> bool:
        """Whether this may be the model of that name; True where no name is known.

        Letter case, folders before the name and "latest" do not matter, and a date does only where both names have one.

        Examples
        --------
        >>> recorded = RecordedModel(names=("gpt-4o-2024-08-06",))
        >>> (
        ...     recorded.is_called("gpt-4o"),
        ...     recorded.is_called("gpt-4o-mini"),
        ...     recorded.is_called("gpt-4o-2024-11-20"),
        ... )
        (True, False, False)
        """
        return not self.names or any(_same(name, known) for known in self.names)

    @property
    def words(self) -> str:
        """Name and length of answers, for a sentence."""
        name = " or ".join(self.names) or "a model without a name"
        known = "" if self.max_tokens is None else f"answers of up to {self.max_tokens} tokens"
        longest = (
            "" if self.longest is None else f"longest answer {self.longest} token{'s' * (self.longest != 1)}"
        )
        cut = f"{self.cut_off:.0%} cut off" if self.cut_off else ""
        return f"{name} ({', '.join(filter(None, (known, longest, cut))) or 'answers of unknown length'})"


def _same(one: str, other: str) -> bool:
    one, other = (_LATEST.sub("", name.casefold().rsplit("/", 1)[-1]) for name in (one, other))
    return one == other or _DATE.sub("", one) == other or one == _DATE.sub("", other)


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedUncertainty:
    """How one signal's uncertainty was distributed over recorded calls, at about a hundred of its quantiles.

    Attributes
    ----------
    signal : str
        Name of the signal in decisions.
    values : tuple of float
        Rising, in the signal's unit; empty if it was measured on no call.
    at_most : tuple of int
        For each value, the number of calls whose uncertainty is at most that.
    n : int
        Calls, with those on which it was not measured: these count as above every value, since they go to the next tier.

    Raises
    ------
    PolicyError
        Values that do not rise, or numbers of calls that do not fit them.
    """

    signal: str
    values: tuple[float, ...]
    at_most: tuple[int, ...]
    n: int

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in pairwise(self.values))
        counts = (0, *self.at_most, self.n)
        grown = all(low <= high for low, high in pairwise(counts))
        if self.n < 1 or len(self.values) != len(self.at_most) or not rising or not grown:
            msg = (
                f"{len(self.values)} values of {self.signal} with {len(self.at_most)} numbers of at most {self.n} calls: expected "
                "rising values, one rising number of calls for each, and one call at least"
            )
            raise PolicyError(msg)

    @classmethod
    def of(cls, signal: str, uncertainties: Iterable[float | None]) -> RecordedUncertainty:
        """Summarise the uncertainties of recorded calls; None or NaN where the signal was not measured.

        Raises
        ------
        PolicyError
            No calls.

        Examples
        --------
        >>> RecordedUncertainty.of("mine", [0.2, 0.2, 0.5, None]).at_most
        (2, 3)
        """
        values = as_array(uncertainties)
        known = np.sort(values[np.isfinite(values)])
        places = np.unique(np.linspace(0, known.size - 1, min(known.size, _POINTS)).round().astype(int))
        points = np.unique(known[places])
        at_most = np.searchsorted(known, points, side="right")
        return cls(
            signal=signal, values=tuple(points.tolist()), at_most=tuple(at_most.tolist()), n=values.size
        )

    @property
    def measured(self) -> float:
        """Share of the calls on which the signal was measured."""
        return self.at_most[-1] / self.n if self.at_most else 0.0

    def distance(self, uncertainties: Array) -> float:
        """Largest difference, at the kept values, to the cumulative distribution of other uncertainties; at most the true one."""
        if not self.values:
            return float(np.isfinite(uncertainties).mean())
        known = np.sort(uncertainties[np.isfinite(uncertainties)])
        other = np.searchsorted(known, self.values, side="right") / uncertainties.size
        return float(np.abs(np.array(self.at_most) / self.n - other).max())


def as_array(uncertainties: Iterable[float | None]) -> Array:
    """Uncertainties as floats, NaN for None; rounded as a decision's JSON form is, so that those of a log are the same numbers."""
    values = [math.nan if value is None else round(value, 6) for value in uncertainties]
    return np.array(values, dtype=np.float64)


# Of a file that holds a tenth of the fitted rows about 25 are recognised, of one that holds a hundredth two or three.
_SKETCH = 256


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class RowSketch:
    """A sample of the rows of a run, by which others tell how many of theirs are among them: its 256 smallest fingerprints.

    Two runs are sampled by the same hash, so that a row of both is in both samples or in neither (Cohen and Kaplan, "Summarizing data
    using bottom-k sketches", PODC 2007).

    Attributes
    ----------
    fingerprints : tuple of int
        Rising, each below 2**48: hashes of the rows' ids, prompts, drafts and samples, which hold no text.

    Raises
    ------
    PolicyError
        Fingerprints that do not rise, or more than 256.

    Examples
    --------
    >>> RowSketch.of([5, 3]).share_of([3, 4, 9, 5])
    0.5
    """

    fingerprints: tuple[int, ...] = field(repr=False)

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in pairwise((-1, *self.fingerprints, 2**48)))
        if len(self.fingerprints) > _SKETCH or not rising:
            msg = f"{len(self.fingerprints)} fingerprints of rows: expected at most {_SKETCH}, rising and below 2**48"
            raise PolicyError(msg)

    @classmethod
    def of(cls, fingerprints: Iterable[int]) -> RowSketch:
        """Take the smallest of a run's."""
        return cls(fingerprints=tuple(sorted(set(fingerprints))[:_SKETCH]))

    def share_of(self, fingerprints: Iterable[int]) -> float:
        """Estimate the share of these fingerprints that are the run's, in [0, 1].

        Exact for a run of fewer than 256 rows. In longer ones a few common rows may be missed; a stranger is never taken for one.
        """
        known = set(self.fingerprints)
        last = math.inf if len(known) < _SKETCH else self.fingerprints[-1]
        compared = [one in known for one in fingerprints if one <= last]
        return sum(compared) / len(compared) if compared else 0.0


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a policy was fitted on. It holds no text of any call; the signals' settings stand in the policy's gates.

    Attributes
    ----------
    edge : RecordedModel
        Of the policy's first tier.
    between : tuple of RecordedModel
        Of the tiers between the first and the last.
    cloud : RecordedModel or None
        Of the last; None if no answers of it were recorded.
    kind : str or None
        By which kind the answers were read (`confroute record --kind`); None if the run does not say.
    n : int
        Rows of the run.
    date : str
        Day of the fit, ISO 8601.
    data_hash : str
        SHA-256 of the rows as JSON lines: that of the file, if it was fitted as a whole, as `confroute record` wrote it and unpacked.
    version : str
        Version of confroute that fitted it.
    uncertainty : tuple of RecordedUncertainty
        Of each signal that decides, as the policy measured it on the calls that gave the thresholds.
    rows : RowSketch or None
        By which these rows are recognised among others; None in files of earlier versions.

    Raises
    ------
    PolicyError
        Fewer than one row.
    """

    edge: RecordedModel
    cloud: RecordedModel | None
    kind: str | None
    n: int
    date: str
    data_hash: str
    version: str
    uncertainty: tuple[RecordedUncertainty, ...]
    between: tuple[RecordedModel, ...] = ()
    rows: RowSketch | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            msg = f"a provenance of {self.n} rows: expected one at least"
            raise PolicyError(msg)

    def differs(
        self, tier: str, name: str | None, max_tokens: int | None, *, between: int | None = None
    ) -> str | None:
        """Say what is different about the model that a tier is given; None if nothing is known to be.

        Parameters
        ----------
        tier : str
            "edge" or "cloud"; for a tier between them its own name.
        name : str or None
            The model's name; None if it has none of its own.
        max_tokens : int or None
            The longest answer that it is asked for; None for no limit, or an unknown one.
        """
        recorded = self.edge if tier == "edge" else self.cloud if between is None else self.between[between]
        if recorded is None:
            return None
        if name is not None and not recorded.is_called(name):
            return f"its {tier} is {name}, recorded was {recorded.words}"
        wanted = recorded.max_tokens or recorded.longest
        if max_tokens is None or wanted is None or max_tokens >= wanted:
            return None
        return f"its {tier} answers in up to {max_tokens} tokens, recorded was {recorded.words}"

    @property
    def words(self) -> str:
        """All of it in one sentence."""
        between = "".join(f", {one.words}" for one in self.between)
        cloud = "" if self.cloud is None else f" and {self.cloud.words} as cloud"
        return (
            f"fitted on {self.n} calls of {self.edge.words} as edge{between}{cloud}, {self.date}, by confroute {self.version}, run "
            f"{self.data_hash[:12]}"
        )

    def to_dict(self) -> dict[str, JSON]:
        """JSON form, without the distributions."""
        between: list[JSON] = [_plain(one) for one in self.between]
        return {
            "edge": _plain(self.edge),
            **({"between": between} if between else {}),
            "cloud": None if self.cloud is None else _plain(self.cloud),
            "kind": self.kind,
            "n": self.n,
            "date": self.date,
            "data_hash": self.data_hash,
            "version": self.version,
        }


def _plain(model: RecordedModel) -> dict[str, JSON]:
    return {
        "names": [*model.names],
        "max_tokens": model.max_tokens,
        "longest": model.longest,
        "cut_off": round(model.cut_off, 6),
    }
