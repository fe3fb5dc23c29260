"""Probes: a linear classifier on the edge's hidden states predicts, before any token, whether the answer will be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.asks import AskGenerator, Hidden
from confroute.decision import Measurement
from confroute.errors import FormatError, MissingExtraError, PolicyError, SignalUnavailableError
from confroute.reading import fields, is_version, items, json_file, number, text, whole
from confroute.registry import register
from confroute.signals.base import Case, Range
from confroute.tensors import read_arrays, write_described

Floats: TypeAlias = "npt.NDArray[np.float64]"
FORMAT, VERSION = "confroute-probe", 1
_WHAT = "a probe's file"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeWeights:
    """A fitted probe; made by `confroute.recording.probes.fit_probe`.

    Attributes
    ----------
    layers : tuple of int
        The layers whose states it reads; 0 stands for the embeddings.
    mean, scale, weights : ndarray of float64, shape (layers * width,)
        Standardisation of the states, and the weights of the standardised states.
    bias : float
    target : str
        The event that `probability` refers to: "wrong" or "semantic_entropy".
    about : mapping
        Model and rows that it was fitted on, and how well it ranks out of fold.
    """

    layers: tuple[int, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: float
    target: str
    about: dict[str, str | int | float | None] = field(default_factory=dict)

    def probability(self, states: npt.ArrayLike) -> Floats:
        """Probability of the target, in (0, 1), shape (n,), for states of shape (n, layers * width)."""
        z = (np.asarray(states, dtype=np.float64) - self.mean) / self.scale
        return np.asarray(
            1 / (1 + np.exp(-np.clip(z @ self.weights + self.bias, -500, 500))), dtype=np.float64
        )

    def save(self, path: str | Path) -> None:
        """Write the weights to `path` (safetensors) and their metadata beside it (JSON).

        Raises
        ------
        MissingExtraError
            safetensors is not installed.
        OSError
            A file could not be written.
        """
        arrays = {"mean": self.mean, "scale": self.scale, "weights": self.weights}
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "layers": [*self.layers],
            "bias": self.bias,
            "target": self.target,
            "about": self.about,
        }
        write_described(path, arrays, metadata, _WHAT)

    @classmethod
    def load(cls, path: str | Path) -> ProbeWeights:
        """Read what `save` wrote.

        Raises
        ------
        PolicyError
            The file is missing, not a probe, or of another version.
        MissingExtraError
            safetensors is not installed.
        """
        path = Path(path)
        about = path.with_suffix(".json")
        try:
            metadata = fields(json_file(about, PolicyError), about.name)
            if metadata.get("format") != FORMAT or not is_version(metadata.get("version"), VERSION):
                msg = f"format {metadata.get('format')!r}, version {metadata.get('version')!r}"
                raise FormatError(msg)
            read = read_arrays(path, _WHAT, PolicyError)
            arrays = {name: np.asarray(array, np.float64) for name, array in read.items()}
            layers = enumerate(items(metadata.get("layers"), "layers"))
            fitted: Any = fields(metadata.get("about"), "about")
            return cls(
                **arrays,
                layers=tuple(whole(layer, f"layers[{at}]") for at, layer in layers),
                bias=number(metadata.get("bias"), "bias"),
                target=text(metadata.get("target"), "target"),
                about=fitted,
            )
        except MissingExtraError:
            raise
        # A constructor that is given other arrays than its own raises what Python raises.
        except Exception as error:
            msg = f"{path} is not a probe that this version can read ({error}): expected format {FORMAT!r}, version {VERSION}; fit and save it again"
            raise PolicyError(msg) from error


@lru_cache(maxsize=8)
def _load_once(path: str) -> ProbeWeights:
    return ProbeWeights.load(path)


@register(
    kind="signal",
    needs="the edge's weights, a fitted probe",
    recorded="`--signals 'Probe(path=\"probe.safetensors\")'`",
    example={"path": "probe.safetensors"},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Probability that the answer will be wrong, predicted from the edge's hidden states after the prompt; in (0, 1).

    Parameters
    ----------
    path : str
        A file written by `ProbeWeights.save`; read once per process.

    Notes
    -----
    Needs the edge's weights in this process, and a run recorded with `confroute record --hidden`. Costs one pass over the
    prompt, which the answer needs anyway, and no token: it is measured before anything is generated, so it cannot
    see the draft. Semantic entropy probes: Kossen et al. (arXiv 2406.15927), there on binarised semantic entropy at the
    last prompt token; they found that target to transfer better to other data than correctness. A probe is valid for one
    model, in one precision, with one prompt template.
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

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Ask for the hidden states and classify them.

        Raises
        ------
        SignalUnavailableError
            The tier's weights are not in this process, or its states do not have the size that the probe was fitted on.
        PolicyError
            There is no readable probe at `path`.
        """
        weights = _load_once(self.path)
        evidence = yield Hidden(tier=case.tier.name, layers=weights.layers)
        states = evidence.numbers
        if states is None or states.size != weights.weights.size:
            size = 0 if states is None else states.size
            msg = f"the probe expects {weights.weights.size} numbers and {case.tier.model} gave {size}: fit a probe for this model"
            raise SignalUnavailableError(msg)
        value = float(weights.probability(states.reshape(1, -1))[0])
        details: dict[str, object] = {"target": weights.target, "layers": [*weights.layers]}
        return Measurement(signal=self.name, uncertainty=value, details=details)  # type: ignore[arg-type]  # a list of int is JSON
