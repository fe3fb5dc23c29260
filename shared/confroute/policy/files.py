"""Policies as JSON: readable, versioned, and nothing but known classes comes out of it."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, TypeVar

from confroute.certificate import Certificate
from confroute.errors import PolicyError
from confroute.policy.gate import Gate, GroupThreshold
from confroute.policy.prefix import Prefix
from confroute.policy.rules import KeepPrivate, SendTo
from confroute.policy.threshold import Threshold
from confroute.signals import (
    AlphabetSize,
    BetaBinomial,
    Cocoa,
    Combined,
    ContextLacks,
    ContextSupport,
    CoverageEntropy,
    Degree,
    Eccentricity,
    EigenvalueSum,
    EmbeddingCosine,
    Ensemble,
    EntailmentDegree,
    EwensMixture,
    KernelEntropy,
    LogisticCalibrator,
    McDropout,
    Member,
    MonotoneInterpolator,
    OptionProbability,
    Probe,
    PTrue,
    Recorded,
    RetrievalScore,
    SameEmbedding,
    SameEntailment,
    SameText,
    SelfConsistency,
    SemanticEntropy,
    TokenEntropy,
    TokenLogprob,
    TokenMargin,
    Verbalised,
    WordOverlap,
)

FORMAT = "confroute-policy"
VERSION = 1
_WRITTEN_BY = "policies are written by `confroute fit --out` and policy.save"
T = TypeVar("T", bound=type)
_KNOWN: dict[str, type[Any]] = {
    known.__name__: known
    for known in (
        *(BetaBinomial, Combined, MonotoneInterpolator, EwensMixture, LogisticCalibrator, Member, Recorded),
        *(AlphabetSize, Cocoa, CoverageEntropy, Degree, Eccentricity, EigenvalueSum),
        *(KernelEntropy, OptionProbability, PTrue, EmbeddingCosine, EntailmentDegree, WordOverlap),
        *(TokenEntropy, TokenMargin, Verbalised),
        *(
            Certificate,
            Gate,
            GroupThreshold,
            KeepPrivate,
            SameEmbedding,
            SameEntailment,
            SameText,
            SelfConsistency,
            SemanticEntropy,
        ),
        *(Prefix, SendTo, Threshold, TokenLogprob, ContextLacks, ContextSupport, RetrievalScore),
        *(Ensemble, McDropout, Probe),
    )
}


# Names that classes had in files of earlier versions.
_KNOWN |= {"Curve": MonotoneInterpolator, "Head": LogisticCalibrator}


def register(cls: T) -> T:
    """Let a frozen dataclass stand in policy files; its fields must be JSON, tuples or registered classes.

    Examples
    --------
    >>> import dataclasses
    >>> @register
    ... @dataclasses.dataclass(frozen=True)
    ... class MySignal:
    ...     weight: float = 1.0
    """
    # `is_dataclass` would narrow `cls` to a type that is no longer the caller's.
    known: type[Any] = cls
    if not dataclasses.is_dataclass(known):
        msg = f"{cls.__name__} is no dataclass: only those can be written to a policy file"
        raise PolicyError(msg)
    _KNOWN[cls.__name__] = known
    return cls


def refuse_path(policy: object) -> None:
    """Say how a file is read, to whoever gives its path for the policy.

    Raises
    ------
    PolicyError
    """
    if isinstance(policy, (str, os.PathLike)):
        path = os.fspath(policy)
        msg = f"policy is a {type(policy).__name__}, {path!r}: load a file with Cascade.load({path!r})"
        raise PolicyError(msg)


def to_json(policy: object) -> str:
    """The policy as text.

    Raises
    ------
    PolicyError
        It holds an object of a class that is not registered.
    """
    return json.dumps({"format": FORMAT, "version": VERSION, "policy": _plain(policy)}, indent=2) + "\n"


def from_json(text: str) -> object:
    """The policy that `to_json` wrote.

    Raises
    ------
    PolicyError
        Not a policy file, another version, or values that no policy may have.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"this is no policy file: not JSON ({error}); {_WRITTEN_BY}"
        raise PolicyError(msg) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        msg = f'this is no policy file: expected an object with "format": "{FORMAT}"; {_WRITTEN_BY}'
        raise PolicyError(msg)
    if data.get("version") != VERSION:
        msg = (
            f"this policy file has version {data.get('version')!r}, this confroute reads version {VERSION}: "
            "update confroute, or fit and save the policy again"
        )
        raise PolicyError(msg)
    return _built(data.get("policy"))


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        if _KNOWN.get(kind) is not type(value):
            msg = f"a {kind} cannot be written to a policy file: register it with confroute.policy.register"
            raise PolicyError(msg)
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": kind, **fields}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    msg = (
        f"a {type(value).__name__} cannot be written to a policy file: make it a registered frozen dataclass"
    )
    raise PolicyError(msg)


def _built(value: object) -> Any:
    if isinstance(value, list):
        return tuple(_built(item) for item in value)
    if not isinstance(value, dict):
        return value
    fields = dict(value)
    kind = fields.pop("class", None)
    cls = _KNOWN.get(kind) if isinstance(kind, str) else None
    if cls is None:
        msg = f"unknown class {kind!r} in the policy file: expected one of {', '.join(sorted(_KNOWN))}"
        raise PolicyError(msg)
    try:
        return cls(**{name: _built(item) for name, item in fields.items()})
    except TypeError as error:
        msg = f"{kind} in the policy file: {error}"
        raise PolicyError(msg) from error
