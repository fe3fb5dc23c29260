"""One prompt to one label: both models are asked, and what they said is measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from confroute.asks import Ask, Embed, Entails, Evidence
from confroute.errors import ConfrouteError, PolicyError
from confroute.executor import work
from confroute.flow import drive
from confroute.judge import Comparison, Judge, Pair
from confroute.judge.files import asked, is_private, reference_text
from confroute.judge.verdicts import Winner
from confroute.labels.entropy import ESTIMATORS, Estimator, entropy_winner, label_entropy, relative_difference
from confroute.labels.rows import Label
from confroute.models.resilience import Limits, attempt
from confroute.models.text_model import TextModel
from confroute.policy.rules import KeepPrivate
from confroute.recording import RecordedSample, Row, Side
from confroute.recording.grade import answer_in, graded
from confroute.recording.prompts import messages_of
from confroute.signals.equivalence import Equivalence, SameEmbedding
from confroute.types import JSON, Generation


def quality_of(text: str, question: str, reference: JSON) -> float | None:
    """1 for a right answer, 0 for a wrong one, None without a reference.

    Parameters
    ----------
    text : str
    question : str
    reference : JSON
        A number, an option letter, a text, or a list of texts any of which is right: one of a list may stand anywhere
        in the answer as whole words, since models answer in sentences; the words of a single text must be all.

    Examples
    --------
    >>> (
    ...     quality_of("It was Ada Lovelace.", "Who?", ["Ada Lovelace", "Lovelace"]),
    ...     quality_of("So 7.", "How many?", 8),
    ... )
    (1.0, 0.0)
    """
    return graded(answer_in(text, question, reference), text, question, reference)


def better(a: float, b: float) -> Winner:
    """The side of the higher quality; equal ones are a tie."""
    if a == b:
        return "tie"
    return "a" if a > b else "b"


Source: TypeAlias = Literal["entropy", "correctness", "judge", "mixed"]
SOURCES: tuple[Source, ...] = ("entropy", "correctness", "judge", "mixed")


class UnlabelledError(ConfrouteError, RuntimeError):
    """One prompt that could not be labelled; the message says why, without its text."""


def _work(ask: Ask) -> Evidence:
    """Answer what an equivalence asks for: embeddings and entailment."""
    if not isinstance(ask, (Embed, Entails)):
        msg = f"an equivalence asked for {type(ask).__name__}: expected Embed or Entails"
        raise TypeError(msg)
    return Evidence(numbers=work(ask))


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeller:
    """How prompts are labelled.

    Parameters
    ----------
    edge, cloud : TextModel or None
        None where every row holds that side's samples already.
    source : {"entropy", "correctness", "judge", "mixed"}
        "mixed": correctness where a reference grades both answers, else the judge where there is one, else entropy.
    samples : int
        Answers drawn of each model, 2 or more, for entropy; correctness and judge alone ask once, at temperature 0.
    temperature : float
        Of the samples.
    max_tokens : int
    tau : float
        Least relative difference of entropies that is no tie. The paper's value is not known; 0.1 is a guess.
    estimator : {"paper", "normalised", "discrete"}
    equivalence : Equivalence
        What makes two answers the same.
    judge : Judge or None
    private : KeepPrivate
        Prompts that match are never sent to a remote model: they stay unlabelled.
    limits : Limits
        Of one call of a model.

    Raises
    ------
    PolicyError
        Settings that cannot be used.
    """

    edge: TextModel | None = None
    cloud: TextModel | None = None
    source: Source = "entropy"
    samples: int = 5
    temperature: float = 1.0
    max_tokens: int = 256
    tau: float = 0.1
    estimator: Estimator = "paper"
    equivalence: Equivalence = field(default_factory=SameEmbedding)
    judge: Judge | None = None
    private: KeepPrivate = field(default_factory=KeepPrivate)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.source not in SOURCES or self.estimator not in ESTIMATORS:
            msg = f"source is {self.source!r}, estimator {self.estimator!r}: expected one of {SOURCES} and {ESTIMATORS}"
            raise PolicyError(msg)
        if self.source == "judge" and self.judge is None:
            msg = "source 'judge' without a judge: name one"
            raise PolicyError(msg)
        if self.samples < 2 or not self.temperature > 0 or not self.tau >= 0:
            msg = (
                f"samples={self.samples}, temperature={self.temperature}, tau={self.tau}: expected at least 2 samples, "
                "a temperature above 0 and a tau of at least 0"
            )
            raise PolicyError(msg)

    @property
    def run(self) -> str:
        """Fingerprint of all that decides a label: rows of different ones must not be mixed in one file."""
        told = {
            "edge": None if self.edge is None else self.edge.name,
            "cloud": None if self.cloud is None else self.cloud.name,
            "judges": [] if self.judge is None else [model.name for model in self.judge.models],
            "equivalence": repr(self.equivalence),
            **{
                key: getattr(self, key)
                for key in ("source", "samples", "temperature", "max_tokens", "tau", "estimator")
            },
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    def answered(self, row: Row) -> Row:
        """The row with samples of both models; those that it holds already are not drawn again.

        Raises
        ------
        UnlabelledError
            A private prompt and a remote model; an answer that is missing and no model to ask.
        """
        edge = self._side(row, row.edge, self.edge, "edge")
        cloud = self._side(row, row.cloud or Side(), self.cloud, "cloud")
        return replace(row, edge=edge, cloud=cloud)

    def label(self, row: Row) -> Label:
        """Label a row that `answered` returned.

        Raises
        ------
        UnlabelledError
            The judge failed, or an answer is missing.
        """
        if row.cloud is None:
            msg = "no answer of the cloud is recorded"
            raise UnlabelledError(msg)
        said_a, said_b = _answers(row.edge), _answers(row.cloud)
        text_a, text_b = _first(said_a), _first(said_b)
        base = Label(
            id=row.id,
            model_a=row.edge.model or "edge",
            model_b=row.cloud.model or "cloud",
            prompt=row.question,
            response_a=text_a,
            response_b=text_b,
            winner="tie",
            source="",
            quality_a=_quality(row, row.edge, text_a),
            quality_b=_quality(row, row.cloud, text_b),
            run=self.run,
        )
        if (
            self.source in ("correctness", "mixed")
            and base.quality_a is not None
            and base.quality_b is not None
        ):
            return replace(base, winner=better(base.quality_a, base.quality_b), source="correctness")
        if self.source == "correctness":
            msg = "no reference and no recorded quality of both answers"
            raise UnlabelledError(msg)
        if self.judge is not None and self.source in ("judge", "mixed"):
            return self._judged(row, base, self.judge)
        # Entropies of different numbers of samples do not compare, and a recorded side may hold more than are drawn now.
        edge, cloud = (side.further()[: self.samples] for side in (row.edge, row.cloud))
        return self._by_entropy(row, base, edge, cloud)

    def is_private(self, row: Row) -> bool:
        """Whether a row must not reach a remote model: its text matches, or it is tagged, or says "private"."""
        return is_private(row, self.private)

    def _side(self, row: Row, side: Side, model: TextModel | None, name: str) -> Side:
        several = self.source == "entropy" or (self.source == "mixed" and self.judge is None)
        wanted = self.samples if several else 1
        if len(side.samples) >= wanted > 1 or (
            wanted == 1 and (_first(_answers(side)) is not None or side.quality is not None)
        ):
            return side
        if model is None:
            msg = f"{len(side.samples)} samples of the {name} are recorded, {wanted} are wanted, and no model to ask was named"
            raise UnlabelledError(msg)
        if model.remote and self.is_private(row):
            msg = f"private: not sent to the remote model of the {name}"
            raise UnlabelledError(msg)
        temperature = self.temperature if several else 0.0
        drawn = self._draw(row, model, wanted, temperature, name)
        samples = tuple(
            RecordedSample(
                text=one.text, logprobs=one.logprobs, answer=one.answer, extra={"finish": one.finish}
            )
            for one in drawn
        )
        usage: dict[str, JSON] = {
            "input_tokens": sum(one.usage.input_tokens for one in drawn if one.usage),
            "output_tokens": sum(one.usage.output_tokens for one in drawn if one.usage),
        }
        return replace(
            side,
            model=model.name,
            samples=samples,
            extra={**side.extra, "temperature": temperature, "sampled": usage},
        )

    def _draw(
        self, row: Row, model: TextModel, n: int, temperature: float, name: str
    ) -> Sequence[Generation]:
        messages = messages_of(row)
        # A seed of its own for each prompt and model: a run that is taken up again draws what it would have drawn.
        seed = int.from_bytes(hashlib.sha256(f"{row.id}\x1f{model.name}".encode()).digest()[:4], "big") >> 1
        # Some servers refuse requests for log-probabilities.
        logprobs = self.source in ("entropy", "mixed") and self.estimator != "discrete"
        drawn = attempt(
            self.limits,
            name,
            lambda: model.generate(
                messages,
                n=n,
                temperature=temperature,
                max_tokens=self.max_tokens,
                seed=seed,
                logprobs=logprobs,
            ),
        ).value
        if len(drawn) < n or not any(one.text.strip() for one in drawn):
            msg = (
                f"{model.name} returned {len(drawn)} of {n} answers"
                if len(drawn) < n
                else f"{model.name} said nothing"
            )
            raise UnlabelledError(msg)
        return drawn

    def _judged(self, row: Row, base: Label, judge: Judge) -> Label:
        if base.response_a is None or base.response_b is None:
            msg = "a judge needs the text of both answers"
            raise UnlabelledError(msg)
        reference = reference_text(row)
        pair = Pair(
            id=row.id,
            question=asked(row),
            a=base.response_a,
            b=base.response_b,
            reference=reference,
            private=is_private(row, self.private, base.response_a, base.response_b, reference),
        )
        (found,) = judge.compare([pair])
        comparison: Comparison = found
        if comparison.winner is None:
            msg = f"the judge failed: {comparison.error}"
            raise UnlabelledError(msg)
        return replace(base, winner=comparison.winner, source="judge")

    def _by_entropy(
        self, row: Row, base: Label, edge: Sequence[Generation], cloud: Sequence[Generation]
    ) -> Label:
        found = [
            drive(
                label_entropy(
                    said, question=row.question, equivalence=self.equivalence, estimator=self.estimator
                ),
                _work,
            )
            for said in (edge, cloud)
        ]
        return replace(
            base,
            winner=entropy_winner(found[0], found[1], tau=self.tau),
            source="entropy",
            se_a=found[0],
            se_b=found[1],
            delta=relative_difference(found[0], found[1]),
        )


def _answers(side: Side) -> tuple[Generation, ...]:
    draft = side.generation()
    return (*(() if draft is None else (draft,)), *side.further())


def _first(answers: Sequence[Generation]) -> str | None:
    return answers[0].text if answers else None


def _quality(row: Row, side: Side, text: str | None) -> float | None:
    """As graded in the recording, else against the reference."""
    if side.quality is not None:
        return side.quality
    return None if text is None else quality_of(text, row.question, row.reference)
