"""Personal data detected by Presidio, where it is installed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from confroute.errors import MissingExtraError, PolicyError
from confroute.registry import register


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Presidio:
    """A detector for `KeepPrivate(detect=...)`: whether Microsoft's Presidio finds personal data in a text.

    Parameters
    ----------
    entities : tuple of str
        Presidio's names, such as "IBAN_CODE", "CREDIT_CARD", "EMAIL_ADDRESS", "PERSON"; all that it knows where empty.
    score : float in [0, 1]
        The lowest confidence of Presidio's that counts; a lower one keeps more calls private.
    language : str
        A language for which the analyser has a model.

    Raises
    ------
    PolicyError
        A score outside [0, 1].
    MissingExtraError
        `presidio-analyzer` is not installed when the detector is used.

    Notes
    -----
    Names of people and places come from a spaCy model, which must be installed and which Presidio loads on first use; entities that
    are found by patterns alone do not depend on it. `use` replaces Presidio's default analyser by your own.
    """

    entities: tuple[str, ...] = ()
    score: float = 0.5
    language: str = "en"

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            msg = f"score is {self.score}: expected a number in [0, 1]"
            raise PolicyError(msg)

    def __call__(self, text: str) -> bool:
        """Whether the text contains any of the entities."""
        results = _analyser().analyze(
            text=text,
            language=self.language,
            entities=[*self.entities] or None,
            score_threshold=self.score,
        )
        return bool(results)


_own: list[Any] = []


def use(analyser: Any) -> None:
    """Let every `Presidio` of this process use this `AnalyzerEngine`, such as one with recognisers of your own."""
    _own[:] = [analyser]


def _analyser() -> Any:
    return _own[0] if _own else _default()


@functools.cache
def _default() -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine  # pyright: ignore[reportMissingImports]  user's choice
    except ImportError as error:
        raise MissingExtraError(extra="presidio", needed_for="the detector Presidio") from error
    return AnalyzerEngine()
