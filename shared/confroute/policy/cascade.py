"""The policy that ships: draft on the cheap tier, measure, keep or escalate."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from confroute.asks import Ask, Evidence, Report
from confroute.decision import Routed
from confroute.errors import PolicyError, RequestError
from confroute.flow import Flow
from confroute.policy.files import from_json, register, to_json
from confroute.policy.gate import Gate, check_threshold
from confroute.policy.layer import Shown
from confroute.policy.prefix import Prefix
from confroute.policy.rules import Rule, Ruling
from confroute.policy.synthesis import default_lacking, gates_for, stay
from confroute.policy.threshold import DEFAULT_SOURCE, Threshold
from confroute.policy.walk import Walk
from confroute.signals import SelfConsistency, Signal, TokenLogprob
from confroute.types import Request


def default_gates() -> tuple[Gate, ...]:
    """What a cascade measures if it is not told: log-probabilities, and samples where there are none.

    0.25 nats a token is a mean probability of 78 %; 0.4 is two of five samples. Neither number was fitted to your
    models: record and calibrate before you rely on them.
    """
    return (
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.25, source=DEFAULT_SOURCE)),
        Gate(signal=SelfConsistency(), threshold=Threshold(value=0.4, source=DEFAULT_SOURCE)),
    )


@register
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Cascade(Shown):
    """Ask each tier in turn, cheapest first, and keep the first answer that is certain enough.

    Parameters
    ----------
    gates : tuple of Gate
        Signals by cost. The first one that can be measured decides, unless its value lies in its grey zone and a
        further one can be measured.
    rules : tuple of Rule
        Asked in order before any model; the first ruling counts, but one that keeps text private comes before
        everything, a forced route included.
    tiers : tuple of str
        Two or more names, cheapest first. The last one answers what no other may.
    prefix : Prefix or None
        Commits to a draft, or cuts it off, by its first tokens. None: a draft is judged whole by the gates.
    on_no_signal : {"cloud", "edge", "raise"}
        When no gate can be measured: go to the next tier, keep the draft, or raise `NoSignalError`.
    on_edge_error : {"cloud", "raise"}
        When a tier that may be replaced fails.
    on_cloud_error : {"raise", "edge"}
        When the last tier fails after a draft was rejected: raise, or return that draft flagged `degraded`.
    returns : {"draft", "majority"}
        What is returned where a tier is kept after samples were drawn: its draft, or the answer that most of draft and samples
        give (`confroute.policy.majority`), the draft in a tie. The decision says where a sample took the draft's place.
    lacking : Gate or None
        Judges drafts that say that the retrieved context lacks the answer, before the other gates; None treats them
        like any other draft. Calls without retrieved context have none.
    sticky : bool
        Whether a call that goes on from an answer of a later tier stays there (the next step of a synthesis).

    Raises
    ------
    PolicyError
        Fewer than two tiers, a name twice, no gate, or an unknown word for `returns` or one of the `on_` choices.

    Notes
    -----
    The policy does no I/O and keeps no state: one object serves any number of threads, tasks and hosts.

    Examples
    --------
    >>> policy = Cascade.of(TokenLogprob(), 0.3)
    >>> policy.gates[0].threshold.value
    0.3
    """

    gates: tuple[Gate, ...] = field(default_factory=default_gates)
    rules: tuple[Rule, ...] = ()
    tiers: tuple[str, ...] = ("edge", "cloud")
    prefix: Prefix | None = None
    on_no_signal: Literal["cloud", "edge", "raise"] = "cloud"
    on_edge_error: Literal["cloud", "raise"] = "cloud"
    on_cloud_error: Literal["raise", "edge"] = "raise"
    returns: Literal["draft", "majority"] = "draft"
    lacking: Gate | None = field(default_factory=default_lacking)
    sticky: bool = True

    def __post_init__(self) -> None:
        if len(self.tiers) < 2 or len(set(self.tiers)) < len(self.tiers):
            msg = f"tiers are {self.tiers}: expected two or more different names, cheapest first"
            raise PolicyError(msg)
        if not isinstance(self.gates, tuple) or not all(isinstance(gate, Gate) for gate in self.gates):
            msg = f"gates are {self.gates!r}: expected a tuple of Gate(signal=..., threshold=...), with a comma for a single one"
            raise PolicyError(msg)
        if not isinstance(self.rules, tuple) or not all(callable(rule) for rule in self.rules):
            msg = f"rules are {self.rules!r}: expected a tuple of rules such as KeepPrivate(...), with a comma for a single one"
            raise PolicyError(msg)
        names = [gate.signal.name for gate in self.gates]
        if not names or len(set(names)) < len(names):
            msg = f"gates measure {names}: expected at least one signal, each once"
            raise PolicyError(msg)
        _one_of("on_no_signal", self.on_no_signal, ("cloud", "edge", "raise"))
        _one_of("on_edge_error", self.on_edge_error, ("cloud", "raise"))
        _one_of("on_cloud_error", self.on_cloud_error, ("raise", "edge"))
        _one_of("returns", self.returns, ("draft", "majority"))

    def __repr__(self) -> str:
        """One line; `save` writes it all."""
        from confroute.views.policy import policy_text

        return policy_text(self)

    @classmethod
    def of(
        cls,
        signal: Signal,
        threshold: float | Threshold,
        *,
        rules: tuple[Rule, ...] = (),
        on_no_signal: Literal["cloud", "edge", "raise"] = "cloud",
        on_edge_error: Literal["cloud", "raise"] = "cloud",
        on_cloud_error: Literal["raise", "edge"] = "raise",
    ) -> Cascade:
        """A cascade of edge and cloud with one signal and one threshold."""
        given = threshold if isinstance(threshold, Threshold) else Threshold(value=threshold)
        return cls(
            gates=(Gate(signal=signal, threshold=given),),
            rules=rules,
            on_no_signal=on_no_signal,
            on_edge_error=on_edge_error,
            on_cloud_error=on_cloud_error,
        )

    def save(self, path: str | Path) -> None:
        """Write this policy as JSON; see `confroute.policy.files`.

        Raises
        ------
        PolicyError
            A signal, equivalence or rule of your own: confroute can only write what it can read back.
        """
        Path(path).write_text(to_json(self), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Cascade:
        """Read a policy that `save` wrote.

        Raises
        ------
        PolicyError
            No file, no policy file, one of another version, or one whose values no policy may have.
        """
        try:
            # Bytes that are no text become an error of the reader's: "not JSON".
            policy = from_json(Path(path).read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            msg = f"{path} cannot be read: {error}; expected a policy file of `confroute fit --out` or policy.save"
            raise PolicyError(msg) from error
        except PolicyError as error:
            msg = f"{path}: {error}"
            raise PolicyError(msg) from error
        if not isinstance(policy, cls):
            msg = f"{path} holds a {type(policy).__name__}: expected a {cls.__name__}"
            raise PolicyError(msg)
        return policy

    def flow(self, request: Request, *, rulings: Sequence[Ruling] | None = None) -> Flow:
        """Route one request; see `confroute.flow.Policy`.

        Parameters
        ----------
        request : Request
        rulings : sequence of Ruling, optional
            What `rulings` gave, for a layer that asked the rules already: a detector may cost more than the draft.

        Raises
        ------
        RequestError
            An empty conversation, or a forced route to a tier that does not exist.
        PolicyError
            A threshold for this call that no gate of this policy can use.
        """
        if not any(message.text.strip() for message in request.messages) and not request.attachments:
            msg = "the conversation is empty: expected at least one message with content"
            raise RequestError(msg)
        walk = Walk(policy=self, request=request, gates=self._gates(request))
        ruling = self._ruling(request, self.rulings(request) if rulings is None else rulings)
        try:
            return (yield from self._steps(walk, ruling))
        except Exception as error:
            yield Report(decision=walk.failed(error))
            raise

    def _steps(self, walk: Walk, ruling: Ruling | None) -> Generator[Ask, Evidence, Routed]:
        if ruling is not None:
            return (yield from walk.ruled(ruling))
        for tier in self.tiers[:-1]:
            routed = yield from walk.try_tier(tier)
            if routed is not None:
                return routed
        return (yield from walk.last_resort(self.tiers[-1]))

    def rulings(self, request: Request) -> list[Ruling]:
        """What the rules say, in their order; each is asked once."""
        return [ruling for rule in self.rules if (ruling := rule(request)) is not None]

    def _ruling(self, request: Request, rulings: Sequence[Ruling]) -> Ruling | None:
        for ruling in rulings:
            self._check_tier(ruling.tier, f"rule {ruling.rule!r}")
            if ruling.private:
                return ruling
        if request.route is not None:
            self._check_tier(request.route, "the forced route")
            return Ruling(
                rule="forced", tier=request.route, reason=f"forced to {request.route} by the caller"
            )
        if rulings:
            return rulings[0]
        return stay(request, self.tiers) if self.sticky else None

    def _check_tier(self, tier: str, who: str) -> None:
        if tier not in self.tiers:
            msg = f"{who} names the tier {tier!r}: expected one of {', '.join(self.tiers)}"
            raise RequestError(msg)

    def _gates(self, request: Request) -> tuple[Gate, ...]:
        """The gates with the thresholds that the caller gave for this call."""
        given = request.threshold
        if given is None:
            own = tuple(gate.for_tags(request.tags) for gate in self.gates) if request.tags else self.gates
            return gates_for(request, own, self.lacking)
        names = [gate.signal.name for gate in self.gates]
        if isinstance(given, (int, float)):
            if len(names) > 1:
                msg = f"threshold {given:g} for a policy of several signals: name the one it is for, as {{{names[0]!r}: {given:g}}}"
                raise PolicyError(msg)
            given = {names[0]: float(given)}
        unknown = set(given) - set(names)
        if unknown:
            msg = f"threshold for {', '.join(sorted(unknown))}: this policy measures {', '.join(names)}"
            raise PolicyError(msg)
        gates = (gate.for_tags(request.tags) for gate in self.gates)
        whose = request.threshold_source
        return tuple(_with_threshold(gate, given.get(gate.signal.name), whose) for gate in gates)


def _with_threshold(gate: Gate, value: float | None, source: str) -> Gate:
    if value is None:
        return gate
    check_threshold(gate.signal, value)
    keep_grey = gate.grey is not None and gate.grey[0] <= value <= gate.grey[1]
    return replace(
        gate,
        threshold=Threshold(value=value, source=source),
        grey=gate.grey if keep_grey else None,
    )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        msg = f"{name} is {value!r}: expected one of {', '.join(map(repr, known))}"
        raise PolicyError(msg)
