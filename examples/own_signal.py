"""A signal and a policy of your own, in twenty lines each: both plug into either host."""

from dataclasses import dataclass, field

from confroute import Cascade, Measurement, Request
from confroute.asks import AskGenerator, Final
from confroute.decision import Decision, Routed
from confroute.signals.base import Case, Range
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat

HEDGES = ("maybe", "perhaps", "not sure", "i think", "probably")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedging:
    """Words of doubt in the draft; 0 or more, higher means less reliable."""

    name: str = "hedging"
    range: Range = field(default_factory=lambda: Range(unit="words"))

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Count them; nothing is asked for."""
        yield from ()
        text = case.draft.text.lower()
        return Measurement(signal=self.name, uncertainty=float(sum(text.count(word) for word in HEDGES)))


class ShortToEdge:
    """Short prompts to the edge, long ones to the cloud, without looking at any answer."""

    tiers = ("edge", "cloud")

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Yield what is needed, receive it, return the routed answer."""
        tier = "edge" if len(request.asked) < 40 else "cloud"
        evidence = yield Final(tier=tier)
        decision = Decision(
            route=tier, stage="rule", reason=f"{len(request.asked)} characters", rule="length"
        )
        return Routed(generation=evidence.generations[0], decision=decision)


if __name__ == "__main__":
    edge, cloud = ScriptedChat.of("Maybe 42, I think."), ScriptedChat.of("It is 41.")
    for policy in (Cascade.of(Hedging(), 0), ShortToEdge()):
        router = ChatConfRoute(edge=edge, cloud=cloud, policy=policy)
        answer = router.invoke("How many islands are there?")
        print(answer.text, "|", answer.response_metadata["confroute"]["reason"])
