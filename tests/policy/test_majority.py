"""Samples drawn to judge a draft as the answer itself: which one is returned, and what the decision says."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import (
    Cascade,
    Gate,
    Message,
    Request,
    SelfConsistency,
    SemanticEntropy,
    Threshold,
    TokenLogprob,
)
from confroute.decision import Decision
from confroute.errors import PolicyError
from confroute.executor import run
from confroute.policy.verdict import majority
from confroute.signals.answers import final_answer
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Generation

QUESTION = "How many legs has a spider?"
texts = st.lists(st.sampled_from(["8", "It is 8.", "eight", "So 7", "7.0", "6 legs"]), min_size=1, max_size=9)


def routed(policy, draft, samples, question=QUESTION):
    """One call between scripted models."""
    models = {
        "edge": ScriptedModel([draft], samples=samples, name="small"),
        "cloud": ScriptedModel(["cloud"], name="large"),
    }
    request = Request(messages=(Message(role="user", text=question),))
    return run(policy, request, ScriptedCalls(models=models).call(request), {})


def keeping(n, **fields):
    """A policy that draws n samples and keeps everything."""
    gate = Gate(signal=SemanticEntropy(n=n, step=n, weighting="probability"), threshold=Threshold(value=1.0))
    return Cascade(gates=(gate,), **fields)


@given(st.sampled_from(["8", "So 7"]), texts)
def test_the_draft_is_returned_where_its_answer_is_among_the_most_frequent(draft, drawn):
    """A tie is the draft's; else the first sample with the most frequent answer, and nothing is ever made up."""
    made = [Generation(text=text) for text in (draft, *drawn)]
    found = majority(QUESTION, made[0], made[1:])
    votes = Counter(final_answer(one.text, QUESTION) for one in made)
    own = votes[final_answer(draft, QUESTION)]
    assert found.votes == max(votes.values())
    assert found.of == len(made)
    if own == found.votes:
        assert found.answer is made[0]
    else:
        first = next(one for one in made if votes[final_answer(one.text, QUESTION)] == found.votes)
        assert found.answer is first


@given(texts.filter(lambda drawn: len(drawn) > 1), st.booleans())
def test_a_policy_returns_what_the_vote_says(drawn, wanted):
    """Under "majority" the winner, under the default the draft; the decision says which, and its JSON too."""
    policy = keeping(len(drawn), returns="majority") if wanted else keeping(len(drawn))
    replies = [Reply(text=text, logprob=-0.1) for text in drawn]
    done = routed(policy, Reply(text="So 7", logprob=-0.1), replies)
    won = majority(QUESTION, Generation(text="So 7"), [Generation(text=text) for text in drawn])
    assert done.decision.route == "edge"
    assert done.generation.text == (won.answer.text if wanted else "So 7")
    assert done.decision.sampled == (wanted and won.answer.text != "So 7" and won.answer.text in drawn)
    assert ("a sample is returned" in done.decision.reason) == done.decision.sampled
    assert Decision.from_dict(done.decision.to_dict()).sampled == done.decision.sampled


def test_samples_that_cannot_be_returned_do_not_vote():
    """Cut off, flawed or empty."""
    draft = Generation(text="7")
    for bad in ({"finish": "length"}, {"flaw": "unknown tool"}):
        made = [Generation(text="8", **bad)] * 3
        assert majority(QUESTION, draft, made).answer is draft
    assert majority(QUESTION, draft, [Generation(text=" ")] * 3).of == 1


def test_long_texts_that_all_differ_leave_the_draft():
    """Nothing tells which of several long texts say the same."""
    drawn = [
        f"A long text of more than eight words that ends with the word {word}" for word in ("a", "b", "c")
    ]
    done = routed(keeping(3, returns="majority"), Reply(text=drawn[0] + " x", logprob=-0.1), drawn, "Why?")
    assert not done.decision.sampled


def test_an_escalated_call_and_one_without_samples_return_what_they_always_do():
    """The vote concerns kept drafts that samples were drawn for."""
    policy = Cascade.of(SelfConsistency(n=3, step=3), 0.4)
    policy = Cascade(gates=policy.gates, returns="majority")
    done = routed(policy, "So 7", ["8", "8", "8"])
    assert (done.generation.text, done.decision.route, done.decision.sampled) == ("cloud", "cloud", False)
    free = Cascade(gates=Cascade.of(TokenLogprob(), 0.5).gates, returns="majority")
    done = routed(free, Reply(text="So 7", logprob=-0.1), ["8", "8"])
    assert (done.generation.text, done.decision.sampled) == ("So 7", False)


def test_the_tokens_of_the_samples_are_counted_once():
    """The sample that is returned is billed by its own step and by no other."""
    done = routed(
        keeping(3, returns="majority"), Reply(text="So 7", logprob=-0.1), [Reply(text="8", logprob=-0.1)] * 3
    )
    assert done.decision.sampled
    assert [(step.kind, step.n) for step in done.decision.steps] == [("draft", 1), ("sample", 3)]
    assert done.decision.usage["edge"].output_tokens == 2 + 3


def test_the_option_is_kept_in_a_policy_file_and_misspelt_words_are_refused(tmp_path):
    """Saved and read back; "vote" is no choice."""
    policy = Cascade(returns="majority")
    policy.save(tmp_path / "policy.json")
    assert Cascade.load(tmp_path / "policy.json") == policy
    with pytest.raises(PolicyError, match="returns is 'vote'"):
        Cascade(returns="vote")
