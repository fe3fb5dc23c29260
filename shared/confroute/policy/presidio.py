"""Personal data found by Presidio, where it is installed."""

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
        The least confidence that counts. Presidio's own; lower keeps more calls at home.
    language : str
        A language that the analyser has a model for.

    Raises
    ------
    PolicyError
        A score outside [0, 1].
    MissingExtraError
        When it is asked and `presidio-analyzer` is not installed.

    Notes
    -----
    Names of people and places come from a spaCy model, which Presidio loads (and wants installed) on first use; entities with a
    pattern alone need none of its answers. `use` puts an analyser of your own in the place of Presidio's default.
    """

    entities: tuple[str, ...] = ()
    score: float = 0.5
    language: str = "en"

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            msg = f"score is {self.score}: expected a number in [0, 1]"
            raise PolicyError(msg)

    def __call__(self, text: str) -> bool:
        """Whether it finds any of the entities."""
        found = _analyser().analyze(
            text=text,
            language=self.language,
            entities=[*self.entities] or None,
            score_threshold=self.score,
        )
        return bool(found)


_own: list[Any] = []


def use(analyser: Any) -> None:
    """Let every `Presidio` of this process ask this `AnalyzerEngine`, such as one with recognisers of your own."""
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
