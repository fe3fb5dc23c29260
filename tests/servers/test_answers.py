"""One table of behaviours for every server and every client, with nothing of ours between the two."""

from dataclasses import dataclass, field, replace

import pytest

from confroute import Cascade, Gate, Message, Prefix, SelfConsistency, Threshold, TokenLogprob
from confroute.alignment import answer_tokens
from confroute.models.provider_answers import read_generations
from confroute.models.resolution import resolve
from confroute.signals import OptionProbability

pytestmark = pytest.mark.slow

CLOUD = "The cloud answers."
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
# Of the answer; the model's mark of the end of its turn is one more, which both servers count.
TOKENS = 7
ANY, NONE = 1e9, 0.0
ANY_SHARE = 1.0
# Never commits before the answer is whole.
WHOLE = Prefix(commit=Threshold(value=ANY), cut=Threshold(value=ANY), tokens=99, least=99)


# Where a call in full and a stream say all; `test_log_probabilities_spell_the_answer` reads every form.
TWO_FORMS = pytest.mark.parametrize("form", ["sync", "astream"])


@dataclass(frozen=True, eq=False)
class Watched:
    """A signal that keeps the drafts it measured."""

    inner: object = field(default_factory=TokenLogprob)
    drafts: list = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def measure(self, case):
        self.drafts.append(case.draft)
        return (yield from self.inner.measure(case))


def written(gates, **fields):
    """A policy whose draft is written and read as a stream, where the call is one."""
    return Cascade(gates=gates, prefix=WHOLE, **fields)


async def test_log_probabilities_spell_the_answer(server, client, form, ask):
    """As many as the answer has tokens, with as many alternatives; a server that sends none is said to."""
    watched = Watched()
    seen = await ask(client(server, written(Cascade.of(watched, ANY).gates)), QUESTION, form)
    (draft,) = watched.drafts
    assert draft.text == ANSWER
    if not server.scores:
        assert (draft.logprobs, draft.tokens) == (None, None)
        assert (seen.text, seen.decision.route, seen.decision.stage) == (CLOUD, "cloud", "no_signal")
        assert seen.decision.signals == {}
        assert "returned no log-probabilities" in seen.decision.skipped["token_logprob"]
        return
    assert (seen.text, seen.decision.route) == (ANSWER, "edge")
    positions = answer_tokens(draft.tokens, draft.text)
    assert "".join(draft.tokens[at] for at in positions) == ANSWER
    assert len(positions) == TOKENS
    assert len(draft.tokens) == len(draft.logprobs) == TOKENS + (form in {"sync", "async"})
    mean = -sum(draft.logprobs[at] for at in positions) / TOKENS
    assert seen.decision.signals["token_logprob"].uncertainty == pytest.approx(mean)


async def test_one_answer_is_equally_certain_however_it_is_read(llamacpp, client, ask):
    """Whole answers score the end of the turn, streams do not: it does not count."""
    router = client(llamacpp, written(Cascade.of(TokenLogprob(), ANY).gates))
    found = [await ask(router, QUESTION, form) for form in ("sync", "async", "stream", "astream")]
    first, *others = [seen.decision.uncertainty for seen in found]
    assert 0 < first < 1
    assert others == pytest.approx([first] * 3, rel=0.01)


async def test_the_numbers_are_those_of_the_model(llamacpp, smollm2):
    """The same weights in this process are as certain of the same answer, but for llama.cpp's arithmetic."""
    asked = [Message(role="system", text="Answer in one sentence."), Message(role="user", text=QUESTION)]
    (served,) = resolve(f"openai:{llamacpp.model}", base_url=llamacpp.url).generate(asked, top_logprobs=3)
    (own,) = smollm2.generate(asked, top_logprobs=3)
    assert served.text == own.text == ANSWER
    assert served.logprobs[:TOKENS] == pytest.approx(own.logprobs, abs=0.3)


OPTIONS = "Which planet is the largest?\nA. Mars\nB. Jupiter\nC. Venus\nAnswer with one letter."


@TWO_FORMS
async def test_alternatives_are_read(server, client, form, ask):
    """The first token is one of the letters, and its alternatives hold the others."""
    watched = Watched(OptionProbability(top_logprobs=12))
    seen = await ask(client(server, written(Cascade.of(watched, 1.0).gates)), OPTIONS, form)
    (draft,) = watched.drafts
    if not server.scores:
        assert draft.top_logprobs is None
        assert (seen.text, seen.decision.stage) == (CLOUD, "no_signal")
        assert "returned no log-probabilities" in seen.decision.skipped["option_probability"]
        return
    assert (seen.text, seen.decision.route) == (draft.text, "edge")
    assert {len(place) for place in draft.top_logprobs} >= {12}
    assert {"A", "B", "C"} <= {token for token, _ in draft.top_logprobs[0]}
    assert 0 < seen.decision.uncertainty < 1


COUNT = "How many legs do 3 dogs have? Give the number."


@TWO_FORMS
async def test_the_answer_alone_is_measured(server, client, form, ask):
    """`span="answer"` finds the number among the tokens."""
    watched = Watched(TokenLogprob(span="answer"))
    seen = await ask(client(server, written(Cascade.of(watched, ANY).gates)), COUNT, form)
    (draft,) = watched.drafts
    if not server.scores:
        assert (seen.text, seen.decision.stage) == (CLOUD, "no_signal")
        return
    (at,) = [position for position, token in enumerate(draft.tokens) if token.strip().isdigit()]
    assert seen.decision.signals["token_logprob.answer"].uncertainty == pytest.approx(-draft.logprobs[at])


async def test_a_rejected_draft_never_reaches_the_caller(server, client, form, ask):
    """Not one of its words, whether it is too uncertain or cannot be measured."""
    seen = await ask(client(server, written(Cascade.of(TokenLogprob(), NONE).gates)), QUESTION, form)
    assert (seen.text, seen.decision.route) == (CLOUD, "cloud")
    assert not any("Paris" in part for part in seen.parts)
    assert seen.decision.stage == ("draft" if server.scores else "no_signal")
    assert [step.kind for step in seen.decision.steps] == ["draft", "final"]


async def test_a_kept_draft_is_the_answer(server, client, form, ask):
    """Without evidence too, where the policy says so, and the decision then says that there was none."""
    policy = written(Cascade.of(TokenLogprob(), ANY).gates, on_no_signal="edge")
    seen = await ask(client(server, policy), QUESTION, form)
    assert (seen.text, seen.decision.route) == (ANSWER, "edge")
    assert seen.decision.stage == ("draft" if server.scores else "no_signal")
    assert [step.kind for step in seen.decision.steps] == ["draft"]


async def test_an_answer_that_is_cut_off_is_rejected(server, client, form, ask):
    """By default; `on_unfinished="judge"` leaves it to the gates."""
    gates = Cascade.of(TokenLogprob(), ANY).gates
    seen = await ask(client(server, written(gates, on_no_signal="edge"), max_tokens=3), QUESTION, form)
    assert (seen.text, seen.decision.route, seen.decision.stage) == (CLOUD, "cloud", "draft")
    assert "cut off at its length limit" in seen.decision.reason
    policy = written(gates, on_no_signal="edge", on_unfinished="judge")
    seen = await ask(client(server, policy, max_tokens=3), QUESTION, form)
    assert (seen.text, seen.decision.route) == ("The capital of", "edge")


# Neither client asks for the usage of a stream from a server that is not OpenAI's own, and llama.cpp sends none unasked.
STREAMED_USAGE = {
    "langchain": {"stream_usage": True},
    "llamaindex": {"additional_kwargs": {"stream_options": {"include_usage": True}}},
    "router": {},
}


async def test_usage_is_the_server_s(server, client, form, ask):
    """Every token that it counts, the mark of the end included, and those that it read from its cache."""
    settings = STREAMED_USAGE[client.name] if "stream" in form else {}
    router = client(server, written(Cascade.of(TokenLogprob(), ANY).gates), **settings)
    said = server.post(messages=[{"role": "user", "content": QUESTION}], temperature=0)["usage"]
    usage = (await ask(router, QUESTION, form)).decision.steps[0].usage
    assert (usage.input_tokens, usage.output_tokens) == (said["prompt_tokens"], said["completion_tokens"])
    assert usage.output_tokens == TOKENS + 1
    # The same prompt was read before, by llama.cpp all but its last token.
    assert usage.cached_tokens == (usage.input_tokens - 1 if server.scores else 0)


@pytest.mark.parametrize("form", ["stream", "astream"])
async def test_usage_that_a_stream_does_not_tell_is_unknown(server, client, form, ask):
    """And not 0; transformers sends it unasked, `openai:` models ask for it."""
    seen = await ask(client(server, written(Cascade.of(TokenLogprob(), ANY).gates)), QUESTION, form)
    usage = seen.decision.steps[0].usage
    assert (usage is None) is (server.scores and client.name != "router")


async def test_samples_decide_and_are_counted(server, client, ask):
    """Four of them: more than llama.cpp gives in one request, so that `openai:` models ask for each."""
    gate = Gate(signal=SelfConsistency(n=4, step=4, temperature=0.5), threshold=Threshold(value=ANY_SHARE))
    seen = await ask(client(server, Cascade(gates=(gate,))), QUESTION)
    assert (seen.text, seen.decision.route, seen.decision.stage) == (ANSWER, "edge", "evidence")
    assert 0 <= seen.decision.uncertainty <= 1
    drawn = [step for step in seen.decision.steps if step.kind == "sample"]
    assert sum(step.n for step in drawn) == 4
    assert sum(step.usage.output_tokens for step in drawn) > 4


async def test_without_log_probabilities_samples_decide(transformers_serve, client, ask):
    """The default policy goes on to samples where its first gate cannot be measured, and says so."""
    seen = await ask(client(transformers_serve, Cascade()), QUESTION, "sync")
    assert "returned no log-probabilities" in seen.decision.skipped["token_logprob"]
    assert seen.decision.signal == "self_consistency"
    assert 1 <= sum(step.n for step in seen.decision.steps if step.kind == "sample") <= 5


async def test_a_model_that_ignores_the_temperature_looks_certain(transformers_serve, client, ask):
    """`transformers serve` samples only a model whose own settings say so: nothing else tells its samples from agreement."""
    greedy = replace(transformers_serve, model="greedy")
    seen = await ask(client(greedy, Cascade.of(SelfConsistency(n=3, step=3), 0.5)), QUESTION, "sync")
    assert (seen.text, seen.decision.uncertainty) == (ANSWER, 0)


async def test_characters_of_several_tokens_are_scored_by_their_last(llamacpp):
    """llama.cpp counts every token, and names one for each character: their text is whole, their number is not."""
    answer = llamacpp.post(
        messages=[{"role": "user", "content": "Hello"}],
        grammar='root ::= "\u6771\u4eac\U0001f600"',
        logprobs=True,
        top_logprobs=1,
    )
    tokens = [place["token"] for place in answer["choices"][0]["logprobs"]["content"]]
    assert tokens == ["\u6771", "\u4eac", "\U0001f600", ""]
    assert answer["usage"]["completion_tokens"] > len(tokens)
    (read,) = read_generations(answer)
    assert len(answer_tokens(read.tokens, read.text)) == 3


def test_llamacpp_counts_one_of_several_answers(llamacpp):
    """The usage of a request for two answers is that of one: who pays by the token has to ask for each."""
    asked = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 3, "temperature": 0}
    answer = llamacpp.post(n=2, logprobs=True, **asked)
    scored = [choice["logprobs"]["content"] for choice in answer["choices"]]
    assert [len(tokens) for tokens in scored] == [3, 3]
    assert answer["usage"]["completion_tokens"] == 3
