"""Draft reuse: the cloud verifies or patches the draft."""

from confroute import Cascade, TokenLogprob
from confroute.executor import arun, run
from confroute.policy.reuse import PATCH, DraftReuse
from tests.conftest import ONCE, SURE, UNSURE, ask, calls_of


def test_a_verified_draft_is_returned():
    """If the cloud answers with the verifying word, the draft is returned as the edge's answer."""
    sends = Cascade.of(TokenLogprob(), 0.1)
    routed = run(
        DraftReuse(policy=sends, mode="verify"), ask(), calls_of(edge=UNSURE, cloud="OK").call(ask()), ONCE
    )
    assert (routed.generation.text, routed.decision.route) == ("5", "edge")
    assert routed.decision.usage["cloud"].output_tokens == 1
    other = run(DraftReuse(policy=sends, mode="verify"), ask(), calls_of(edge=UNSURE).call(ask()), ONCE)
    assert (other.generation.text, other.decision.route) == ("four", "cloud")


async def test_a_draft_to_patch_is_shown_to_the_cloud_whose_answer_counts():
    """The cloud gets question and draft, and its output is the answer, even if it is the verifying word; a kept draft is not shown."""
    patching = DraftReuse(policy=Cascade.of(TokenLogprob(), 0.1))
    assert patching.mode == "patch"
    for output in ("5, patched", "OK"):
        calls = calls_of(edge=UNSURE, cloud=output)
        for routed in (
            run(patching, ask(), calls.call(ask()), ONCE),
            await arun(patching, ask(), calls.acall(ask()), ONCE),
        ):
            assert (routed.generation.text, routed.decision.route) == (output, "cloud")
            assert routed.decision.layers["reuse"] == {"mode": "patch"}
            assert [(step.kind, step.tier) for step in routed.decision.steps] == [
                ("draft", "edge"),
                ("final", "cloud"),
            ]
        for call in calls.models["cloud"].calls:
            assert "What is 2 + 2?" in call.prompt
            assert PATCH.format(draft="5") in call.prompt
        assert all("smaller model" not in call.prompt for call in calls.models["edge"].calls)
    kept = calls_of(edge=SURE)
    decision = run(patching, ask(), kept.call(ask()), ONCE).decision
    assert (decision.route, "reuse" in decision.layers) == ("edge", False)
    assert kept.models["cloud"].calls == []
