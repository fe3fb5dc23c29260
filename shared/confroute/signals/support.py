"""Whether an answer rests on the passages that were retrieved for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from confroute.asks import Entails
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.abstention import abstains, content_words, numbers, sentences
from confroute.signals.base import Asking, Case, Range
from confroute.signals.equivalence import DEFAULT_EMBEDDING, Embedding, embedding_of, numbers_of
from confroute.types import JSON

# Beyond these, one embedding of a long context would take longer than another draft.
MOST_PIECES = 256


@register(
    kind="signal",
    needs="retrieved passages",
    columns={"context_support": {}},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSupport:
    """How little of an answer the retrieved passages support, in [0, 1]: 0 if all of it stands there.

    The answer is cut into sentences, each a claim. A claim's support is that of the passage that supports it best; one
    with a number that stands neither in the passages nor in the question has none, whichever way it is measured.

    Parameters
    ----------
    by : {"words", "embedding", "entailment"}
        "words" needs no model: the share of the claim's content words, those of the question left out, that stand
        in the passages. "embedding" is the highest cosine with a sentence of the passages, "entailment" the highest
        probability that a passage entails the claim.
    model : str or callable, optional
        Embedding model or function as in `SameEmbedding` ("all-minilm-l6-v2" if not given), or the name of an NLI model,
        which has no default.
    statistic : {"mean", "min"}
        Over claims: "min" lets one unsupported sentence count for all.

    Raises
    ------
    PolicyError
        An unknown choice, or "entailment" without a model.

    Notes
    -----
    Supported is not right: the passages may not answer the question, and words do not see who did what to whom.
    Entailment of claims by sources is the measure of Honovich et al., TRUE (arXiv 2204.04991), there with an NLI model
    of 11 billion parameters.

    Examples
    --------
    >>> from confroute.types import Context, Generation, Tier
    >>> def case(answer):
    ...     passages = ("A bicycle costs 3.00 to Nardo.",)
    ...     return Case(
    ...         tier=Tier(name="edge", model="m"),
    ...         question="What does a bicycle cost?",
    ...         draft=Generation(text=answer),
    ...         context=Context(passages=passages),
    ...     )
    >>> next(ContextSupport().measure(case("It costs 3.00.")))
    Traceback (most recent call last):
    StopIteration: Measurement(signal='context_support', uncertainty=0.0, ...
    >>> next(ContextSupport().measure(case("It costs 7.00.")))
    Traceback (most recent call last):
    StopIteration: Measurement(signal='context_support', uncertainty=1.0, ...
    """

    by: Literal["words", "embedding", "entailment"] = "words"
    model: Embedding | None = None
    statistic: Literal["mean", "min"] = "mean"

    def __post_init__(self) -> None:
        if self.by not in ("words", "embedding", "entailment"):
            msg = f"by is {self.by!r}: expected 'words', 'embedding' or 'entailment'"
            raise PolicyError(msg)
        if self.statistic not in ("mean", "min"):
            msg = f"statistic is {self.statistic!r}: expected 'mean' or 'min'"
            raise PolicyError(msg)
        if self.by == "entailment" and not (isinstance(self.model, str) and self.model):
            msg = "support by entailment needs a model: give model= a folder or hub name of an NLI model"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "context_support"

    @property
    def range(self) -> Range:
        """0 to 1: what is unsupported."""
        return Range(high=1.0, unit="unsupported")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Return one minus the support of the draft's claims.

        Raises
        ------
        SignalUnavailableError
            Nothing was retrieved, the draft says that the context lacks the answer, or it holds nothing that could
            be looked up, such as a bare "yes".
        """
        passages = case.context.passages if case.context is not None else ()
        if not passages:
            raise SignalUnavailableError("nothing was retrieved")
        if abstains(case.draft.text):
            raise SignalUnavailableError("the draft gives no answer to support")
        claims = [claim for claim in sentences(case.draft.text) if content_words(claim)]
        if self.by == "words":
            claims = [claim for claim in claims if content_words(claim) - content_words(case.question)]
        if not claims:
            raise SignalUnavailableError("the draft says nothing that could be looked up")
        found = yield from self._supports(claims, passages, case)
        known = numbers(" ".join(passages)) | numbers(case.question)
        supports = [0.0 if numbers(c) - known else s for c, s in zip(claims, found, strict=True)]
        mean, least = math.fsum(supports) / len(supports), min(supports)
        details: dict[str, JSON] = {
            "by": self.by,
            "claims": len(claims),
            "mean_support": round(mean, 6),
            "min_support": round(least, 6),
        }
        return Measurement(
            signal=self.name,
            uncertainty=min(1.0, max(0.0, 1 - (mean if self.statistic == "mean" else least))),
            details=details,
        )

    def _supports(self, claims: Sequence[str], passages: Sequence[str], case: Case) -> Asking[list[float]]:
        if self.by == "words":
            there, asked = content_words(" ".join(passages)), content_words(case.question)
            said = [content_words(claim) - asked for claim in claims]
            return [len(words & there) / len(words) for words in said]
        if self.by == "embedding":
            pieces = [piece for passage in passages for piece in sentences(passage)][:MOST_PIECES]
            evidence = yield embedding_of((*claims, *pieces), self.model or DEFAULT_EMBEDDING)
            vectors = numbers_of(evidence)
            near = vectors[: len(claims)] @ vectors[len(claims) :].T
        else:
            pairs = tuple((passage, claim) for claim in claims for passage in passages)
            evidence = yield Entails(pairs=pairs, model=str(self.model))
            near = numbers_of(evidence).reshape(len(claims), len(passages))
        return [max(0.0, float(row.max())) for row in near]
