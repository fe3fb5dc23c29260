"""Committing to a draft, or cutting it off, while it is still being written."""

from __future__ import annotations

from dataclasses import dataclass

from confroute.asks import Outcome, WatchResult
from confroute.decision import Measurement
from confroute.errors import PolicyError
from confroute.policy.gate import Gate
from confroute.policy.threshold import Threshold
from confroute.policy.verdict import Verdict, compared
from confroute.registry import register
from confroute.signals.logprob import TokenLogprob

SIGNAL = "prefix_logprob"


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """Judge a draft by its first tokens, so that a good one streams early and a hopeless one costs little.

    The running uncertainty is the mean negative log-probability of the tokens so far, in nats per token. From `tokens` tokens on, a
    draft whose running uncertainty is at most `commit` is committed to: it streams and cannot be taken back. From `least` tokens on, a
    draft above `cut` is cut off: the next tier answers. A draft that ends between the two is judged complete by the policy's gates, as
    all drafts are without a prefix.

    Parameters
    ----------
    commit : Threshold
        In nats per token. Fit it on recorded calls: `of` computes the running uncertainty of a recorded draft.
    cut : Threshold
        In nats per token, at least `commit`.
    tokens : int
        Tokens before the first commitment.
    least : int
        Tokens before the first cut; at most `tokens`.
    tiers : tuple of str
        The tiers whose drafts are judged so; all that draft where empty. What the numbers mean differs from model to model.

    Raises
    ------
    PolicyError
        Thresholds below 0 or in the wrong order, or numbers of tokens below 1 or in the wrong order.

    Notes
    -----
    What comes after the commitment is not judged: an earlier first token costs some reliability. Answers that can only be judged
    complete (tool calls, structured values), calls with a threshold of their own, and answers without log-probabilities are judged by
    the gates alone.

    Examples
    --------
    >>> rule = Prefix(commit=Threshold(value=0.1), cut=Threshold(value=1.0), tokens=4, least=2)
    >>> [rule(3, 0.1), rule(4, 0.2), rule(2, 2.5), rule(1, 9.0)]
    ['wait', 'commit', 'cut', 'wait']
    """

    commit: Threshold
    cut: Threshold
    tokens: int = 16
    least: int = 4
    tiers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.commit.value <= self.cut.value:
            msg = f"commit is {self.commit.value:g} and cut {self.cut.value:g} nats per token: expected 0 <= commit <= cut"
            raise PolicyError(msg)
        if not 1 <= self.least <= self.tokens:
            msg = f"least is {self.least} and tokens {self.tokens}: expected 1 <= least <= tokens"
            raise PolicyError(msg)

    def __call__(self, tokens: int, nats: float) -> Outcome:
        """Decide about a draft after `tokens` tokens with `nats` in total; see `confroute.asks.Watch`."""
        running = nats / tokens
        if tokens >= self.tokens and running <= self.commit.value:
            return "commit"
        return "cut" if tokens >= self.least and running > self.cut.value else "wait"

    def of(self, logprobs: tuple[float, ...]) -> float:
        """Compute the running uncertainty of a recorded draft after `tokens` tokens, or after all if there are fewer.

        Examples
        --------
        >>> rule = Prefix(commit=Threshold(value=0.1), cut=Threshold(value=1.0), tokens=2, least=1)
        >>> rule.of((-0.1, -0.3, -9.0))
        0.2
        """
        first = logprobs[: self.tokens]
        return sum(max(0.0, -value) for value in first) / max(1, len(first))

    def verdict(self, watch: WatchResult, tier: str) -> Verdict | None:
        """Judge a draft by how watching it ended; None if the gates have to decide."""
        if watch.outcome == "wait":
            return None
        keep = watch.outcome == "commit"
        threshold, sign = (self.commit, "<=") if keep else (self.cut, ">")
        running = watch.nats / watch.tokens
        then = f"{tier} answer kept while it was written" if keep else f"{tier} answer cut off"
        reason = (
            f"the first {watch.tokens} tokens {compared(running, sign, threshold.value, 'nats')} "
            f"({threshold.source}): {then}"
        )
        return Verdict(
            keep=keep,
            stage="prefix",
            reason=reason,
            gate=Gate(signal=TokenLogprob(), threshold=threshold),
            measurement=Measurement(signal=SIGNAL, uncertainty=running, details={"tokens": watch.tokens}),
        )
