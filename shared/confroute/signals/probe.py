"""Probes: a linear reading of the edge's hidden states that says, before any token, how the answer will turn out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.asks import Hidden
from confroute.decision import Measurement
from confroute.errors import MissingExtraError, PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Asking, Case, Range

Floats: TypeAlias = "npt.NDArray[np.float64]"
FORMAT, VERSION = "confroute-probe", 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeWeights:
    """A fitted probe; made by `confroute.recording.probes.fit_probe`.

    Attributes
    ----------
    layers : tuple of int
        Whose states it reads; 0 stands for the embeddings.
    mean, scale, weights : ndarray of float64, shape (layers * width,)
        Of standardised states.
    bias : float
    target : str
        "wrong" or "semantic_entropy": what `probability` is the probability of.
    about : mapping
        What it was fitted on: model, rows, and how well it ranks out of fold.
    """

    layers: tuple[int, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: float
    target: str
    about: dict[str, str | int | float | None] = field(default_factory=dict)

    def probability(self, states: npt.ArrayLike) -> Floats:
        """Probability of the target for states of shape (n, layers * width), in (0, 1), shape (n,)."""
        z = (np.asarray(states, dtype=np.float64) - self.mean) / self.scale
        return np.asarray(
            1 / (1 + np.exp(-np.clip(z @ self.weights + self.bias, -500, 500))), dtype=np.float64
        )

    def save(self, path: str | Path) -> None:
        """Write `path` (safetensors) and, beside it, its facts as JSON.

        Raises
        ------
        MissingExtraError
            safetensors is not installed.
        """
        path = Path(path)
        arrays = {"mean": self.mean, "scale": self.scale, "weights": self.weights}
        _safetensors().save_file(arrays, path)
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "layers": [*self.layers],
            "bias": self.bias,
            "target": self.target,
            "about": self.about,
        }
        path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> ProbeWeights:
        """Read what `save` wrote.

        Raises
        ------
        PolicyError
            No probe, or one of another version.
        MissingExtraError
            safetensors is not installed.
        """
        path, reader = Path(path), _safetensors()
        try:
            facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if facts["format"] != FORMAT or facts["version"] != VERSION:
                msg = f"format {facts['format']!r}, version {facts['version']!r}"
                raise ValueError(msg)
            arrays = {name: np.asarray(array, np.float64) for name, array in reader.load_file(path).items()}
            return cls(
                **arrays,
                layers=tuple(facts["layers"]),
                bias=float(facts["bias"]),
                target=str(facts["target"]),
                about=facts["about"],
            )
        except MissingExtraError:
            raise
        except Exception as error:
            msg = f"{path} is no probe that this confroute reads ({error}): fit and save it again"
            raise PolicyError(msg) from error


def _safetensors() -> Any:
    try:
        from safetensors import numpy as found
    except ImportError as error:
        raise MissingExtraError(extra="local", needed_for="a probe's file") from error
    return found


@lru_cache(maxsize=8)
def _loaded(path: str) -> ProbeWeights:
    return ProbeWeights.load(path)


@register(
    kind="signal",
    needs="the edge's weights, a fitted probe",
    recorded="`--signals 'Probe(path=\"probe.safetensors\")'`",
    example={"path": "probe.safetensors"},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Probability, read off the edge's hidden states behind the prompt, that its answer will be wrong; in (0, 1).

    Parameters
    ----------
    path : str
        What `ProbeWeights.save` wrote; read once a process.

    Notes
    -----
    Needs the edge's weights in this process, and a run recorded with `confroute record --hidden`. Costs one reading of the
    prompt, which the answer needs as well, and no token: it can be measured before anything is generated, and so cannot
    see the draft. Semantic entropy probes: Kossen et al. (arXiv 2406.15927), there on binarised semantic entropy at the
    last prompt token; of the two targets it found theirs to carry over better to other data. A probe belongs to one model,
    in one precision, behind one prompt template.
    """

    path: str

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "probe"

    @property
    def range(self) -> Range:
        """A probability."""
        return Range(high=1.0, unit="probability")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Ask for the hidden states and read them.

        Raises
        ------
        SignalUnavailableError
            The tier's weights are not in this process, or its states are not those the probe was fitted on.
        PolicyError
            No probe at `path`.
        """
        weights = _loaded(self.path)
        evidence = yield Hidden(tier=case.tier.name, layers=weights.layers)
        states = evidence.numbers
        if states is None or states.size != weights.weights.size:
            size = 0 if states is None else states.size
            msg = f"the probe reads {weights.weights.size} numbers, {case.tier.model} gave {size}: fit one for this model"
            raise SignalUnavailableError(msg)
        value = float(weights.probability(states.reshape(1, -1))[0])
        details: dict[str, object] = {"target": weights.target, "layers": [*weights.layers]}
        return Measurement(signal=self.name, uncertainty=value, details=details)  # type: ignore[arg-type]  # a list of int is JSON
