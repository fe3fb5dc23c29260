"""A head before the cascade: some prompts are routed without a draft."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from confroute.asks import Ask, AskGenerator, Embed, Evidence, Report
from confroute.decision import Decision, Measurement, Routed, Stage, Step
from confroute.display import Displayable
from confroute.errors import (
    CallEndedError,
    MissingExtraError,
    ModelError,
    PolicyError,
    StreamInterruptedError,
)
from confroute.flow import intercept
from confroute.heads.base import Estimate, Head, TextHead, check_head_input
from confroute.heads.encoder import Encoder, encoder
from confroute.heads.files import check_kind, hash_of_head, load_head, save_head
from confroute.policy.cascade import Cascade, CascadeRun
from confroute.policy.verdict import blocked_by, compared, sticky_ruling
from confroute.policy.wrapper import hold_back
from confroute.registry import from_plain, register, to_plain
from confroute.remediation import failure
from confroute.types import Request, Tier

SIGNAL = "head"
_SET_UP = (MissingExtraError, ModelError, PolicyError)
_WRITTEN_APART = ("head", "encoder")


@register(kind="wrapper")
@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFirst(Displayable):
    """Ask a head first: cloud now, edge now, or draft and verify by the cascade.

    Parameters
    ----------
    head : Head or TextHead
        Trained on vectors of `encoder`, or one that reads texts.
    encoder : Encoder, optional
        None for a head that reads texts.
    cascade : Cascade
        Its rules come first, its gates judge drafts, and the head chooses between its first and its last tier.
    cloud_above : float in [0, 1]
        The cloud answers at once where the head's probability that the cloud wins is above this. 1: never.
    edge_below : float in [0, 1]
        The edge answers at once, unmeasured, where that probability is below this. 0: never.
    doubt : float
        Where the head's `spread` is above this, the head is too uncertain for either.
    on_doubt : {"verify", "cloud"}
        What happens then: draft on the edge and let the cascade judge the draft, or ask the cloud.

    Raises
    ------
    PolicyError
        Bounds outside [0, 1] or crossed, a `doubt` that is not a number, an unknown `on_doubt`, bounds that no call could meet, or an
        encoder that is missing or not needed.

    Notes
    -----
    The paper's router (Zhang et al., arXiv 2502.11021) is `cloud_above=t, edge_below=t`: no draft is ever judged. Where the embedding
    fails, the cascade decides, and the decision says so. Only the question is read, after the rules: a text that a rule keeps private
    never reaches the encoder or the head. The cascade also decides forced routes and calls that continue a later tier's answer.
    """

    head: Head | TextHead
    encoder: Encoder | None = None
    cascade: Cascade = field(default_factory=Cascade)
    cloud_above: float = 1.0
    edge_below: float = 0.0
    doubt: float = math.inf
    on_doubt: Literal["verify", "cloud"] = "verify"

    def __post_init__(self) -> None:
        check_head_input(self.head, has_encoder=self.encoder is not None)
        if not 0 <= self.edge_below <= self.cloud_above <= 1:
            msg = f"edge_below is {self.edge_below}, cloud_above {self.cloud_above}: expected 0 <= edge_below <= cloud_above <= 1"
            raise PolicyError(msg)
        if math.isnan(self.doubt) or self.doubt < 0:
            msg = f"doubt is {self.doubt}: expected a standard deviation of 0 or more"
            raise PolicyError(msg)
        if self.on_doubt not in ("verify", "cloud"):
            msg = f"on_doubt is {self.on_doubt!r}: expected 'verify' or 'cloud'"
            raise PolicyError(msg)
        doubts = self.on_doubt == "cloud" and self.doubt < math.inf
        if self.edge_below == 0 and self.cloud_above == 1 and not doubts:
            msg = (
                f"edge_below is 0 and cloud_above 1, doubt {self.doubt} with on_doubt={self.on_doubt!r}: the head would never "
                "settle a call; lower cloud_above, raise edge_below, or send doubt to the cloud"
            )
            raise PolicyError(msg)

    @property
    def tiers(self) -> tuple[str, ...]:
        """Those of the cascade."""
        return self.cascade.tiers

    def to_fields(self, beside: Path | None) -> dict[str, Any]:
        """What a policy file holds of it: the head by its folder and hash, a local encoder by its name or folder.

        Parameters
        ----------
        beside : Path or None
            The policy file; see `confroute.registry.to_plain`.

        Raises
        ------
        PolicyError
            A head of a kind that cannot be written.
        """
        check_kind(self.head)
        head = {"kind": self.head.kind}
        if beside is not None:
            folder = self._save_head(beside.with_name(f"{beside.name}.head"))
            head |= {"folder": folder.name, "sha256": hash_of_head(folder)}
        plain = {
            one.name: to_plain(getattr(self, one.name), beside=beside, where=f"HeadFirst.{one.name}")
            for one in fields(self)
            if one.name not in _WRITTEN_APART
        }
        return {"head": head, "encoder": _encoder_fields(self.encoder), **plain}

    def _save_head(self, folder: Path) -> Path:
        head: Any = self.head
        if self.encoder is None:
            return save_head(head, folder)
        return save_head(head, folder, identity=self.encoder.identity())

    @classmethod
    def from_fields(
        cls, given: dict[str, Any], beside: Path | None, *, encoder: Encoder | None = None
    ) -> HeadFirst:
        """Make what `to_fields` wrote.

        Parameters
        ----------
        given : dict
        beside : Path or None
            The policy file that it stands in.
        encoder : Encoder, optional
            Needed where the head was trained with a function or a host's embedding.

        Raises
        ------
        PolicyError
            The head is not there or another one, or its encoder is lacking or another one.
        """
        head, about = given.get("head"), given.get("encoder")
        if beside is None or not isinstance(head, dict) or not isinstance(head.get("folder"), str):
            msg = "the head of a HeadFirst is in a folder next to its policy file: read the file with load_policy"
            raise PolicyError(msg)
        folder = beside.parent / head["folder"]
        if hash_of_head(folder) != head.get("sha256"):
            msg = f"the head in {folder} is not the one that this policy was saved with: save the policy again with this head"
            raise PolicyError(msg)
        found = encoder or _encoder_again(about)
        plain = {
            name: from_plain(value, beside=beside, place=(name,))
            for name, value in given.items()
            if name not in _WRITTEN_APART
        }
        loaded: Any = load_head(folder) if found is None else load_head(folder, found)
        return cls(head=loaded, encoder=found, **plain)

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one request; see `confroute.flow.Policy`."""
        if request.route is not None or not request.asked.strip():
            return (yield from self.cascade.flow(request))
        rulings = yield from self.cascade.ask_rules(request)
        if rulings or self._stays(request):
            return (yield from self.cascade.flow(request, rulings=rulings))
        try:
            head_input, steps = yield from self._input(request.asked)
        except _SET_UP:
            raise
        except CallEndedError as ended:
            yield Report(decision=CascadeRun(policy=self.cascade, request=request, gates={}).failed(ended))
            raise
        except Exception as error:  # noqa: BLE001  an embedding that fails is no evidence; the decision says so
            cause = f"{type(error).__name__} while the prompt was embedded"
            cascade = self.cascade.flow(request, rulings=())
            return (yield from _recorded(cascade, lambda decision: _with_estimate(decision, skipped=cause)))
        # `check_head_input` has checked that the head takes this input.
        head: Any = self.head
        estimate: Estimate = head.estimate(head_input)
        measured = Measurement(
            signal=SIGNAL,
            uncertainty=float(estimate.cloud_wins[0]),
            details={"kind": self.head.kind, "spread": round(float(estimate.spread[0]), 6)},
        )
        choice = self._choice(measured.uncertainty, float(estimate.spread[0]))
        if choice is None or blocked_by(_tier(request, choice[0])):
            cascade = self.cascade.flow(request, rulings=())
            return (yield from _recorded(cascade, lambda one: _with_estimate(one, *steps, measured=measured)))
        return (yield from self._answer_on(request, measured, steps, *choice))

    def _input(self, text: str) -> AskGenerator[tuple[object, tuple[Step, ...]]]:
        """The head's input for a text: the text itself, or its vector and the step that computed it."""
        if self.encoder is None:
            return [text], ()
        evidence = yield Embed(texts=(text,), model=self.encoder.name, embed=self.encoder)
        step = Step(kind="embed", model=self.encoder.name, latency_s=evidence.latency_s)
        return evidence.numbers, (step,)

    def _stays(self, request: Request) -> bool:
        return self.cascade.sticky and sticky_ruling(request, self.tiers) is not None

    def _choice(self, wins: float, spread: float) -> tuple[str, str] | None:
        """The tier and the reason, or None where the cascade has to judge a draft."""
        edge, cloud = self.tiers[0], self.tiers[-1]
        if spread > self.doubt:
            if self.on_doubt == "verify":
                return None
            return (
                cloud,
                f"the head does not know (spread {compared(spread, '>', self.doubt)}): {cloud} answers",
            )
        if wins > self.cloud_above:
            return cloud, f"head {compared(wins, '>', self.cloud_above)}: {cloud} answers"
        if wins < self.edge_below:
            return edge, f"head {compared(wins, '<', self.edge_below)}: {edge} answers"
        return None

    def _answer_on(
        self, request: Request, measured: Measurement, steps: tuple[Step, ...], tier: str, reason: str
    ) -> AskGenerator[Routed]:
        """Answer on the chosen tier, or on the other one if it fails and the cascade allows that."""
        edge, cloud = self.tiers[0], self.tiers[-1]
        may_fall = (
            self.cascade.on_cloud_error == "edge" if tier == cloud else self.cascade.on_edge_error == "cloud"
        )
        bound = self.cloud_above if tier == cloud else self.edge_below
        stage: Stage = "head"
        failed: list[Decision] = []

        def settled(decision: Decision) -> Decision:
            # Of two reports of failed calls only the last is let out, with what both tried.
            tried = [one for earlier in failed for one in earlier.steps]
            return replace(
                _with_estimate(decision, *steps, *tried, measured=measured),
                signal=SIGNAL,
                uncertainty=measured.uncertainty,
                threshold=bound,
                threshold_source="given",
            )

        try:
            routed = yield from intercept(
                self.cascade.flow(replace(request, route=tier), rulings=()), hold_back(failed)
            )
            routed = replace(routed, decision=settled(routed.decision))
        except (Exception, CallEndedError) as error:
            if not may_fall or isinstance(error, (CallEndedError, StreamInterruptedError, *_SET_UP)):
                while failed:
                    yield Report(decision=settled(failed.pop()))
                raise
            other = edge if tier == cloud else cloud
            routed = yield from _recorded(
                self.cascade.flow(replace(request, route=other), rulings=()), settled
            )
            stage, reason = "fallback", f"{reason}; {failure(tier, error)}: {other} answers"
        return replace(routed, decision=replace(routed.decision, stage=stage, reason=reason))


def _encoder_fields(given: Encoder | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {"name": given.name, "source": given.source, "features": given.features}


def _encoder_again(about: object) -> Encoder | None:
    """The encoder that `_encoder_fields` wrote."""
    if not isinstance(about, dict):
        return None
    if about.get("source") is None:
        msg = (
            f"its head was trained with the encoder {about.get('name')!r}, which is not a local model: "
            "give load_policy(path, encoder=...) the same one"
        )
        raise PolicyError(msg)
    return encoder(about["source"], features=bool(about.get("features")))


def _tier(request: Request, name: str) -> Tier:
    return request.tiers.get(name) or Tier(name=name, model=name)


def _recorded(flow: AskGenerator[Routed], change: Callable[[Decision], Decision]) -> AskGenerator[Routed]:
    """Run a cascade and change its decision, whether the call is answered or fails."""

    def answer(ask: Ask) -> AskGenerator[Evidence]:
        return (yield Report(decision=change(ask.decision)) if isinstance(ask, Report) else ask)

    routed = yield from intercept(flow, answer)
    return replace(routed, decision=change(routed.decision))


def _with_estimate(
    decision: Decision, *steps: Step, measured: Measurement | None = None, skipped: str | None = None
) -> Decision:
    """Add the head's estimate, or why there is none, to the cascade's decision."""
    return replace(
        decision,
        signals=decision.signals if measured is None else {measured.signal: measured, **decision.signals},
        skipped=decision.skipped if skipped is None else {SIGNAL: skipped, **decision.skipped},
        steps=(*steps, *decision.steps),
    )
