"""Labels one prompt: draws answers of both models and decides which model answers better."""

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
from confroute.judge import Judge, Pair
from confroute.judge.files import is_private, question_text, reference_text
from confroute.judge.verdicts import Winner
from confroute.labels.entropy import ESTIMATORS, Estimator, entropy_winner, label_entropy, relative_difference
from confroute.labels.rows import Label
from confroute.models.resilience import Limits, attempt
from confroute.models.text_model import TextModel
from confroute.policy.rules import KeepPrivate
from confroute.recording import RecordedSample, Row, Side
from confroute.recording.grade import graded
from confroute.recording.prompts import messages_of
from confroute.signals.equivalence import Equivalence, SameEmbedding
from confroute.types import JSON, Generation


def quality_of(text: str, question: str, reference: JSON) -> float | None:
    """Return 1 for a right answer, 0 for a wrong one, and None without a reference.

    Parameters
    ----------
    text : str
    question : str
    reference : JSON
        A number, an option letter, a text, or a list of these, any of which is right; by the rule of
        `confroute.recording.grade.graded`.

    Examples
    --------
    >>> (
    ...     quality_of("It was Ada Lovelace.", "Who?", ["Ada Lovelace", "Lovelace"]),
    ...     quality_of("So 7.", "How many?", 8),
    ... )
    (1.0, 0.0)
    """
    return graded(None, text, question, reference)


def better(a: float, b: float) -> Winner:
    """Return the side with the higher quality; equal qualities are a tie."""
    if a == b:
        return "tie"
    return "a" if a > b else "b"


Source: TypeAlias = Literal["entropy", "correctness", "judge", "mixed"]
SOURCES: tuple[Source, ...] = ("entropy", "correctness", "judge", "mixed")


class UnlabelledError(ConfrouteError, RuntimeError):
    """A prompt cannot be labelled; the message says why, without the prompt's text."""


def _answer(ask: Ask) -> Evidence:
    """Answer the asks of an equivalence: embeddings and entailment."""
    if not isinstance(ask, (Embed, Entails)):
        msg = f"an equivalence asked for {type(ask).__name__}: expected Embed or Entails"
        raise TypeError(msg)
    return Evidence(numbers=work(ask))


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeller:
    """Labels prompts by the settings below.

    Parameters
    ----------
    edge, cloud : TextModel or None
        None if every row has that side's samples already.
    source : {"entropy", "correctness", "judge", "mixed"}
        "mixed": correctness if a reference grades both answers, else the judge if there is one, else entropy.
    samples : int
        Answers to draw from each model for entropy, 2 or more; correctness and judge draw one, at temperature 0.
    temperature : float
        Temperature of the samples.
    max_tokens : int
    tau : float
        Relative difference of entropies up to which a label is a tie. The paper does not give its value; 0.1 is a guess.
    estimator : {"paper", "normalised", "discrete"}
    equivalence : Equivalence
        Decides which answers mean the same.
    judge : Judge or None
    private : KeepPrivate
        Prompts that match are never sent to a remote model and stay unlabelled.
    limits : Limits
        Limits of each model call.

    Raises
    ------
    PolicyError
        A setting is invalid.
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
            msg = f"source is {self.source!r}, estimator {self.estimator!r}: expected one of {SOURCES} and one of {ESTIMATORS}"
            raise PolicyError(msg)
        if self.source == "judge" and self.judge is None:
            msg = "source 'judge' needs a judge: name one"
            raise PolicyError(msg)
        if self.samples < 2 or not self.temperature > 0 or not self.tau >= 0:
            msg = (
                f"samples={self.samples}, temperature={self.temperature}, tau={self.tau}: expected at least 2 samples, "
                "a temperature above 0 and a tau of at least 0"
            )
            raise PolicyError(msg)

    @property
    def run(self) -> str:
        """Fingerprint of all settings that influence a label: labels with different ones must not share a file."""
        settings = {
            "edge": None if self.edge is None else self.edge.name,
            "cloud": None if self.cloud is None else self.cloud.name,
            "judges": [] if self.judge is None else [model.name for model in self.judge.models],
            "equivalence": repr(self.equivalence),
            **{
                key: getattr(self, key)
                for key in ("source", "samples", "temperature", "max_tokens", "tau", "estimator")
            },
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def with_answers(self, row: Row) -> Row:
        """Return the row with samples of both models; samples that it has already are not drawn again.

        Raises
        ------
        UnlabelledError
            The prompt is private and the model remote, or an answer is missing and there is no model to draw it from.
        """
        edge = self._side(row, row.edge, self.edge, "edge")
        cloud = self._side(row, row.cloud or Side(), self.cloud, "cloud")
        return replace(row, edge=edge, cloud=cloud)

    def label(self, row: Row) -> Label:
        """Label a row that `with_answers` returned.

        Raises
        ------
        UnlabelledError
            The judge failed, or an answer is missing.
        """
        if row.cloud is None:
            msg = "no answer of the cloud is recorded: record one, or name a cloud model"
            raise UnlabelledError(msg)
        text_a, text_b = _first_text(row.edge), _first_text(row.cloud)
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
            msg = "correctness needs a reference, or a recorded quality of both answers"
            raise UnlabelledError(msg)
        if self.judge is not None and self.source in ("judge", "mixed"):
            return self._label_by_judge(row, base, self.judge)
        # Entropies are comparable only for equal numbers of samples, and a recorded side may have more than `samples`.
        edge, cloud = (side.further()[: self.samples] for side in (row.edge, row.cloud))
        return self._label_by_entropy(row, base, edge, cloud)

    def is_private(self, row: Row) -> bool:
        """Whether a row must not reach a remote model; see `confroute.judge.files.is_private`."""
        return is_private(row, self.private)

    @property
    def _by_entropy(self) -> bool:
        """Whether entropy may decide: it needs several answers of each model."""
        return self.source == "entropy" or (self.source == "mixed" and self.judge is None)

    def _side(self, row: Row, side: Side, model: TextModel | None, name: str) -> Side:
        needed = self.samples if self._by_entropy else 1
        if len(side.samples) >= needed > 1 or (
            needed == 1 and (_first_text(side) is not None or side.quality is not None)
        ):
            return side
        if model is None:
            msg = f"{len(side.samples)} samples of the {name} are recorded, {needed} are needed, and there is no model to draw them from: name one"
            raise UnlabelledError(msg)
        if model.remote and self.is_private(row):
            msg = f"private: not sent to the remote model of the {name}"
            raise UnlabelledError(msg)
        temperature = self.temperature if self._by_entropy else 0.0
        answers = self._draw(row, model, needed, temperature, name)
        samples = tuple(
            RecordedSample(
                text=answer.text,
                logprobs=answer.logprobs,
                answer=answer.answer,
                extra={"finish": answer.finish},
            )
            for answer in answers
        )
        usage: dict[str, JSON] = {
            "input_tokens": sum(answer.usage.input_tokens for answer in answers if answer.usage),
            "output_tokens": sum(answer.usage.output_tokens for answer in answers if answer.usage),
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
        # Each prompt and model has its own seed, so that a resumed run draws the same samples as an unbroken one.
        seed = int.from_bytes(hashlib.sha256(f"{row.id}\x1f{model.name}".encode()).digest()[:4], "big") >> 1
        # Some servers refuse requests for log-probabilities.
        logprobs = self._by_entropy and self.estimator != "discrete"
        answers = attempt(
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
        if len(answers) < n or not any(answer.text.strip() for answer in answers):
            msg = (
                f"{model.name} returned {len(answers)} of {n} answers"
                if len(answers) < n
                else f"{model.name} returned empty answers only"
            )
            raise UnlabelledError(msg)
        return answers

    def _label_by_judge(self, row: Row, base: Label, judge: Judge) -> Label:
        if base.response_a is None or base.response_b is None:
            msg = "a judge needs the text of both answers"
            raise UnlabelledError(msg)
        reference = reference_text(row)
        pair = Pair(
            id=row.id,
            question=question_text(row),
            a=base.response_a,
            b=base.response_b,
            reference=reference,
            private=is_private(row, self.private, base.response_a, base.response_b, reference),
        )
        (comparison,) = judge.compare([pair])
        if comparison.winner is None:
            msg = f"the judge failed: {comparison.error}"
            raise UnlabelledError(msg)
        return replace(base, winner=comparison.winner, source="judge")

    def _label_by_entropy(
        self, row: Row, base: Label, edge: Sequence[Generation], cloud: Sequence[Generation]
    ) -> Label:
        se_a, se_b = (
            drive(
                label_entropy(
                    answers, question=row.question, equivalence=self.equivalence, estimator=self.estimator
                ),
                _answer,
            )
            for answers in (edge, cloud)
        )
        return replace(
            base,
            winner=entropy_winner(se_a, se_b, tau=self.tau),
            source="entropy",
            se_a=se_a,
            se_b=se_b,
            delta=relative_difference(se_a, se_b),
        )


def _first_text(side: Side) -> str | None:
    """Text of the draft, else of the first sample."""
    draft = side.generation()
    answers = side.further() if draft is None else (draft,)
    return answers[0].text if answers else None


def _quality(row: Row, side: Side, text: str | None) -> float | None:
    """The recorded quality, else the grade against the reference."""
    if side.quality is not None:
        return side.quality
    return None if text is None else quality_of(text, row.question, row.reference)
