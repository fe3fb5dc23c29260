"""Support: how far the retrieved passages back an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from confroute.asks import AskGenerator, Entails
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.abstention import abstains, content_words, numbers, sentences
from confroute.signals.base import Case, Range
from confroute.signals.equivalence import DEFAULT_EMBEDDING, Embedding, embedding_of, numbers_of
from confroute.types import JSON

# Embedding more sentences of a long context would take longer than another draft.
MAX_SENTENCES = 256


@register(
    kind="signal",
    needs="retrieved passages",
    columns={"context_support": {}},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSupport:
    """How little of an answer the retrieved passages support; in [0, 1], 0 where they support all of it.

    Each sentence of the answer is a claim. The support of a claim is that of the passage that supports it best. A claim
    with a number that is neither in the passages nor in the question has no support, however it is measured.

    Parameters
    ----------
    by : {"words", "embedding", "entailment"}
        "words" needs no model: the share of the claim's content words, without those of the question, that occur
        in the passages. "embedding" is the highest cosine with a sentence of the passages, "entailment" the highest
        probability that a passage entails the claim.
    model : str or callable, optional
        Embedding model or function as in `SameEmbedding` ("all-minilm-l6-v2" if not given), or the name of an NLI model,
        which has no default.
    statistic : {"mean", "min"}
        Over claims: with "min" the least supported claim decides.

    Raises
    ------
    PolicyError
        An unknown choice, or "entailment" without a model.

    Notes
    -----
    A supported answer may be wrong: the passages may not answer the question, and a comparison of words ignores who did
    what to whom. Entailment of claims by sources follows Honovich et al., TRUE (arXiv 2204.04991), there with an NLI
    model of 11 billion parameters.

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
            msg = "by='entailment' without a model: pass the folder or hub name of an NLI model as model="
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "context_support"

    @property
    def range(self) -> Range:
        """0 to 1: the unsupported share."""
        return Range(high=1.0, unit="unsupported")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return 1 - the support of the draft's claims.

        Raises
        ------
        SignalUnavailableError
            Nothing was retrieved, the draft says that the context lacks the answer, or it makes no claim that could be
            looked up, as a bare "yes".
        """
        passages = case.context.passages if case.context is not None else ()
        if not passages:
            raise SignalUnavailableError("nothing was retrieved")
        if abstains(case.draft.text):
            raise SignalUnavailableError("the draft gives no answer to support")
        # A sentence that says what the passages lack is not to be found in them.
        claims = [one for one in sentences(case.draft.text) if content_words(one) and not abstains(one)]
        if self.by == "words":
            claims = [claim for claim in claims if content_words(claim) - content_words(case.question)]
        if not claims:
            raise SignalUnavailableError("the draft makes no claim that could be looked up")
        raw = yield from self._supports(claims, passages, case)
        known = numbers(" ".join(passages)) | numbers(case.question)
        supports = [0.0 if numbers(c) - known else s for c, s in zip(claims, raw, strict=True)]
        mean, lowest = math.fsum(supports) / len(supports), min(supports)
        details: dict[str, JSON] = {
            "by": self.by,
            "claims": len(claims),
            "mean_support": round(mean, 6),
            "min_support": round(lowest, 6),
        }
        return Measurement(
            signal=self.name,
            uncertainty=min(1.0, max(0.0, 1 - (mean if self.statistic == "mean" else lowest))),
            details=details,
        )

    def _supports(
        self, claims: Sequence[str], passages: Sequence[str], case: Case
    ) -> AskGenerator[list[float]]:
        if self.by == "words":
            source, question = content_words(" ".join(passages)), content_words(case.question)
            claimed = [content_words(claim) - question for claim in claims]
            return [len(words & source) / len(words) for words in claimed]
        if self.by == "embedding":
            source_sentences = [part for passage in passages for part in sentences(passage)][:MAX_SENTENCES]
            evidence = yield embedding_of((*claims, *source_sentences), self.model or DEFAULT_EMBEDDING)
            vectors = numbers_of(evidence)
            support = vectors[: len(claims)] @ vectors[len(claims) :].T
        else:
            pairs = tuple((passage, claim) for claim in claims for passage in passages)
            evidence = yield Entails(pairs=pairs, model=str(self.model))
            support = numbers_of(evidence).reshape(len(claims), len(passages))
        return [max(0.0, float(row.max())) for row in support]
