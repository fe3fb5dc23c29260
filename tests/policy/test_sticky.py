"""Conversations that stay where their prompt is cached: when, for how long, and what they never override."""

import asyncio
import inspect
import json
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import Cascade, Gate, KeepPrivate, Router, SendTo, Threshold, TokenLogprob, load_policy, record
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import PolicyError
from confroute.executor import arun, run, run_stream
from confroute.heads import WordRidge
from confroute.learning import LearnOnline
from confroute.policy import HeadFirst, Hedged, Sticky, TierPrice, TierThreshold, save_policy
from confroute.prices import Price
from confroute.signals.combined import Combined, LogisticCalibrator, Member
from confroute.state import MemoryStore, SQLiteStore
from confroute.stats.isotonic import MonotoneInterpolator
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Tier, Usage
from tests.conftest import ONCE, ask

PRICE = Price(input_usd=1.0, output_usd=1.0, cached_usd=0.1)
PRICES = (TierPrice(tier="cloud", price=PRICE),)
KEEPS = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("secret",)),))
SURE, UNSURE = Reply(text="4", logprob=-0.01), Reply(text="5", logprob=-0.5)
BILL = Usage(input_tokens=1000, output_tokens=10, cached_tokens=800)
THREAD = frozenset({"thread_id=7"})


class Talk:
    """A conversation whose clock a test sets."""

    def __init__(self, policy=KEEPS, *, cloud=BILL, **settings):
        """Wrap a policy, and let the cloud bill this."""
        self.now = 1e9
        self.store = MemoryStore(clock=lambda: self.now)
        self.policy = Sticky(policy=policy, **{"prices": PRICES, "store": self.store, **settings})
        self.calls = ScriptedCalls(
            models={"edge": ScriptedModel([SURE]), "cloud": ScriptedModel([Reply(text="four", usage=cloud)])}
        )

    def turn(self, edge=SURE, *, after_s=240, policy=None, text="What is 2 + 2?", **given):
        """The decision of a turn that comes so long after the last one."""
        self.now += after_s
        self.calls.models["edge"] = ScriptedModel([edge])
        request = ask(text, **{"tags": THREAD, **given})
        return run(policy or self.policy, request, self.calls.call(request), ONCE).decision


def routes(talk, edges, after_s=240):
    """Where turns go."""
    return [talk.turn(edge, after_s=after_s).route for edge in edges]


def test_it_stays_until_that_has_cost_what_the_cache_is_worth():
    """800 cached tokens are worth 720 millionths; each turn that stays costs 80 for them and 10 for the answer."""
    talk = Talk()
    assert routes(talk, [UNSURE, *[SURE] * 10]) == ["cloud"] * 9 + ["edge"] * 2
    decision = talk.turn(SURE)
    assert "sticky" in decision.layers


def test_the_decision_says_why_in_words():
    """Staying and leaving, with what the cache is worth and what keeping it has cost, in USD."""
    talk = Talk()
    talk.turn(UNSURE)
    stays = talk.turn(SURE)
    assert (stays.route, stays.rule, stays.stage) == ("cloud", "sticky", "rule")
    assert stays.layers["sticky"] == {
        "stayed": True,
        "tier": "cloud",
        "cached_tokens": 800,
        "worth_usd": 0.00072,
        "need": 0.666667,  # of one turn, since the next but one would come too late
        "turn_usd": 0.00009,
        "cost_usd": 0.00009,
    }
    assert "the prompt cache of cloud, 800 tokens, is worth 0.00072 USD" in stays.reason
    assert [step.kind for step in stays.steps] == ["final"]
    routes(talk, [SURE] * 7)
    leaves = talk.turn(SURE)
    assert (leaves.route, leaves.layers["sticky"]["stayed"]) == ("edge", False)
    assert "not stayed for it: the prompt cache of cloud" in leaves.reason
    json.dumps(leaves.to_dict())


@pytest.mark.parametrize(
    ("after_s", "expected"),
    [
        # Turns that come soon find it warm: only the one after which it would end renews it.
        (60, ["edge", "edge", "edge", "cloud", "edge", "edge", "edge", "cloud"]),
        # It has ended before the next turn comes.
        (301, ["edge"] * 8),
    ],
)
def test_a_cache_that_outlives_the_next_turn_needs_no_renewal(after_s, expected):
    """Nothing is lost by leaving it for now."""
    talk = Talk()
    assert talk.turn(UNSURE).route == "cloud"
    assert routes(talk, [SURE] * 8, after_s) == expected


def test_nothing_is_worth_staying_for():
    """No discount, nothing cached as the provider reports it, or a discount that staying costs at once."""
    plain = (TierPrice(tier="cloud", price=Price(input_usd=1, output_usd=1)),)
    half = (TierPrice(tier="cloud", price=Price(input_usd=1, output_usd=1, cached_usd=0.5)),)
    for talk in (
        Talk(prices=plain),
        Talk(prices=half),
        Talk(cloud=Usage(input_tokens=1000, output_tokens=10)),
    ):
        assert routes(talk, [UNSURE, SURE]) == ["cloud", "edge"]


def test_tokens_written_to_a_cache_are_in_it():
    """Anthropic writes what it reads at the next turn."""
    talk = Talk(cloud=Usage(input_tokens=1000, output_tokens=1, cached_tokens=100, cache_write_tokens=700))
    talk.turn(UNSURE)
    assert talk.turn(SURE).layers["sticky"]["cached_tokens"] == 800


def test_a_tier_that_is_seldom_needed_is_not_stayed_on():
    """A turn of 90 millionths is not worth staying for 720 with 1 in 12."""
    talk = Talk()
    routes(talk, [SURE] * 10, after_s=1)
    talk.turn(UNSURE, after_s=1)
    routes(talk, [SURE] * 10, after_s=1)
    talk.now += 160
    decision = talk.turn(SURE, after_s=0)
    note = decision.layers["sticky"]
    assert (decision.route, note["need"]) == ("edge", pytest.approx(2 / 23, abs=1e-6))
    assert note["turn_usd"] > note["need"] * note["worth_usd"]


def test_a_provider_that_charges_for_writing_writes_anew_what_it_has_lost():
    """So its cache is worth more than the discount on what it reads."""
    price = replace(PRICE, cache_write_usd=1.25)
    talk = Talk(prices=(TierPrice(tier="cloud", price=price),))
    talk.turn(UNSURE)
    assert talk.turn(SURE).layers["sticky"]["worth_usd"] == pytest.approx(800 * 1.15e-6)


def test_a_turn_that_needs_the_tier_starts_the_count_again():
    """What staying has cost was not in vain."""
    talk = Talk()
    routes(talk, [UNSURE, *[SURE] * 9])  # left at the last
    talk.turn(UNSURE)
    assert talk.turn(SURE).layers["sticky"]["cost_usd"] == 0.00009


def test_threads_are_apart_and_calls_without_one_are_left_alone():
    """By the label that LangGraph's thread ids come as."""
    talk = Talk()
    talk.turn(UNSURE)
    assert talk.turn(SURE, tags=frozenset({"thread_id=8"})).route == "edge"
    other = talk.turn(SURE, tags=frozenset(), after_s=0)
    assert (other.route, "sticky" in other.layers) == ("edge", False)
    assert talk.turn(SURE, after_s=0).route == "cloud"


RULED = replace(KEEPS, rules=(*KEEPS.rules, SendTo(tier="edge", tags=("cheap",))))


@pytest.mark.parametrize(
    "given",
    [
        {"text": "a secret"},
        {"tags": THREAD | {"cheap"}},
        {"route": "edge"},
    ],
)
def test_rules_and_forced_routes_hold(given):
    """Private text above all: the cloud hears nothing of it, whatever its cache is worth."""
    talk = Talk(RULED)
    talk.turn(UNSURE)
    heard = len(talk.calls.models["cloud"].calls)
    decision = talk.turn(SURE, **given)
    assert decision.route == "edge"
    assert not decision.layers["sticky"]["stayed"]
    assert len(talk.calls.models["cloud"].calls) == heard


def test_a_tier_that_fails_is_not_stayed_on():
    """The call is routed anew, with one record of all that was tried."""
    talk = Talk()
    talk.turn(UNSURE)
    talk.calls.models["cloud"] = ScriptedModel([Reply(fault=ConnectionError("down"))])
    with record() as decisions:
        decision = talk.turn(SURE)
    assert (decision.route, len(decisions)) == ("edge", 1)
    assert [(step.tier, step.error) for step in decision.steps] == [
        ("cloud", "ConnectionError"),
        ("edge", None),
    ]
    with record() as decisions, pytest.raises(Exception, match="down"):
        talk.turn(UNSURE)
    assert [one.stage for one in decisions] == ["failed"]


def test_a_failed_private_call_is_not_made_again():
    """Nor one that failed on another tier than the one it stayed on."""
    talk = Talk()
    talk.turn(UNSURE)
    with record() as decisions, pytest.raises(Exception, match="no other tier was asked"):
        talk.turn(Reply(fault=ConnectionError("down")), text="a secret")
    assert [(one.private, len(one.steps)) for one in decisions] == [(True, 1)]


def test_a_failed_private_call_of_the_tier_it_stayed_on_is_not_made_again():
    """Where private text may go to that tier alone, to route anew would ask it twice."""
    rule = KeepPrivate(patterns=("secret",), tier="cloud", local=True)
    talk = Talk(replace(KEEPS, rules=(rule,)))
    talk.turn(UNSURE)
    talk.calls.models["cloud"] = cloud = ScriptedModel([Reply(fault=ConnectionError("down"))])
    with record() as decisions, pytest.raises(Exception, match="down"):
        talk.turn(SURE, text="a secret")
    assert len(cloud.calls) == 1
    assert [(one.private, one.stage) for one in decisions] == [(True, "failed")]


@pytest.mark.parametrize("form", ["run", "arun", "stream"])
async def test_every_form_of_a_call(form):
    """Whole, async and as a stream, which shows the cloud's answer."""
    talk = Talk()
    talk.turn(UNSURE)
    talk.now += 240
    request = ask(tags=THREAD)
    if form == "stream":
        given = (talk.calls.call(request), talk.calls.stream(request), ONCE)
        *chunks, routed = run_stream(talk.policy, request, *given, scores=lambda chunk: (-0.1,))
        assert "".join(chunks) == "four"
    else:
        call = talk.calls.call(request) if form == "run" else talk.calls.acall(request)
        routed = (run if form == "run" else arun)(talk.policy, request, call, ONCE)
        routed = await routed if inspect.isawaitable(routed) else routed
    assert routed.decision.layers["sticky"]["stayed"]


ORDERS = {
    "hedged inside": lambda talk: replace(talk.policy, policy=Hedged(policy=KEEPS, when="draft")),
    "hedged outside": lambda talk: Hedged(policy=talk.policy, when="draft"),
    "audited outside": lambda talk: Audited(
        policy=talk.policy, test=DriftTest(level=0.1), store=MemoryStore()
    ),
    "audited inside": lambda talk: replace(
        talk.policy, policy=Audited(policy=KEEPS, test=DriftTest(level=0.1), store=MemoryStore())
    ),
    "learning inside": lambda talk: replace(
        talk.policy, policy=LearnOnline(policy=KEEPS, store=MemoryStore(), share=1.0)
    ),
    "paced outside": lambda talk: Paced(
        policy=talk.policy, budgets=(Budget(limit=1.0),), price=PRICE, store=MemoryStore()
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_it_composes(order):
    """With every wrapper that may stand around or inside it, private text stays on the edge and turns stay on the cloud."""
    talk = Talk()
    policy = ORDERS[order](talk)
    assert [talk.turn(edge, policy=policy).route for edge in (UNSURE, SURE)] == ["cloud", "cloud"]
    assert talk.turn(SURE, policy=policy, text="a secret").route == "edge"


def test_a_spent_budget_lets_the_edge_answer():
    """A cloud that may not be paid is one that fails."""
    talk = Talk()
    talk.turn(UNSURE)
    policy = Paced(policy=talk.policy, budgets=(Budget(limit=1e-9),), price=PRICE, store=MemoryStore())
    assert talk.turn(SURE, policy=policy).route == "edge"


def test_a_head_is_overruled():
    """It would answer on the edge at once."""
    head = WordRidge.fit(
        ["prove this", "prove that", "name this", "name that"] * 4, [1, 1, 0, 0] * 4, penalty=0.1
    )
    talk = Talk(HeadFirst(head=head, cascade=KEEPS, cloud_above=0.7, edge_below=0.3))
    asked = [talk.turn(SURE, text=text) for text in ("name this", "prove this", "name this", "name a secret")]
    assert [one.route for one in asked] == ["edge", "cloud", "cloud", "edge"]


def test_more_than_two_tiers():
    """A conversation stays on the middle tier, whose draft may still go on."""
    prices = (*PRICES, TierPrice(tier="mid", price=PRICE))
    gate = Gate(
        signal=TokenLogprob(),
        threshold=Threshold(value=0.3),
        by_tier=(TierThreshold(tier="mid", threshold=Threshold(value=0.3)),),
    )
    talk = Talk(Cascade(tiers=("edge", "mid", "cloud"), gates=(gate,)), prices=prices)
    talk.calls.models["mid"] = ScriptedModel([Reply(text="4", logprob=-0.01, usage=BILL)])
    assert routes(talk, [UNSURE, SURE]) == ["mid", "mid"]
    talk.calls.models["mid"] = ScriptedModel([Reply(text="4", logprob=-0.9, usage=BILL)])
    assert routes(talk, [SURE, SURE]) == ["cloud", "cloud"]


CURVE = MonotoneInterpolator(at=(0.0, 1.0), values=(0.0, 1.0))


def combined(**settings):
    """A signal whose uncertainty is a probability: the logistic of the rank of the log-probability."""
    calibrator = LogisticCalibrator(
        intercept=0.0,
        weights=(8.0,),
        absent=(0.0,),
        calibrated=MonotoneInterpolator(at=(-4.0, 4.0), values=(0.0, 1.0)),
    )
    member = Member(name="token_logprob.mean", signal=TokenLogprob(), rank=CURVE)
    return Combined(members=(member,), wrong=calibrator, decides="wrong", **settings)


FITTED = Cascade(gates=(Gate(signal=combined(), threshold=Threshold(value=0.9)),))
TIERS = {"cloud": Tier(name="cloud", model="large", input_tokens=1000)}


def test_a_switch_is_worth_what_it_bills():
    """A draft that is wrong with one half goes on where a right answer is worth more than twice the bill."""
    probability = Reply(text="5", logprob=-0.5)  # the middle rank
    for value, route in ((0.0019, "edge"), (0.0021, "cloud")):
        decision = Talk(FITTED, value_usd=value).turn(probability, tiers=TIERS)
        assert (decision.route, decision.uncertainty) == (route, pytest.approx(0.5))
        assert decision.threshold == pytest.approx(0.001 / value)
        assert "what the next tier bills" in decision.threshold_source
        assert decision.certificate is None


def test_a_warm_cache_makes_a_switch_cheaper():
    """Its tokens are billed at their own price, and as much is written as last time."""
    talk = Talk(FITTED, value_usd=0.001)
    assert talk.turn(UNSURE, tiers=TIERS).route == "edge"
    assert talk.turn(UNSURE, tiers=TIERS, route="cloud").route == "cloud"
    decision = talk.turn(UNSURE, tiers=TIERS, after_s=60)
    assert decision.route == "cloud"
    assert decision.threshold == pytest.approx((200 + 80 + 10) / 1000)


def test_a_threshold_of_the_caller_and_an_unknown_prompt_leave_the_policys_own():
    """Neither is replaced by a guess."""
    assert Talk(FITTED, value_usd=1.0).turn(UNSURE).threshold == 0.9
    assert Talk(FITTED, value_usd=1.0).turn(UNSURE, tiers=TIERS, threshold=0.7).threshold == 0.7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prices": ()}, "prices are for"),
        ({"prices": (TierPrice(tier="edge", price=PRICE),)}, "prices are for"),
        ({"prices": PRICES * 2}, "prices are for"),
        ({"ttl_s": 0}, "ttl_s is 0"),
        ({"ttl_s": float("inf")}, "ttl_s is inf"),
        ({"value_usd": 1.0}, "calibrated uncertainty, and this policy measures none"),
        ({"value_usd": -1.0}, "value_usd is -1"),
        (
            {"policy": Paced(policy=KEEPS, budgets=(Budget(limit=3, unit="calls"),))},
            "put Paced around Sticky",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    """With what is expected in their place."""
    with pytest.raises(PolicyError, match=words):
        Sticky(**{"policy": KEEPS, "prices": PRICES, **settings})


def test_thresholds_that_are_learned_are_not_overridden():
    """By those of a value."""
    with pytest.raises(PolicyError, match="override the thresholds that the policy learns"):
        Sticky(policy=LearnOnline(policy=FITTED, store=MemoryStore()), prices=PRICES, value_usd=1.0)


def test_save_and_load(tmp_path):
    """As every wrapper, with its prices and its store by address."""
    policy = Sticky(policy=FITTED, prices=PRICES, value_usd=0.01, ttl_s=3600.0, store="memory:talks")
    save_policy(policy, tmp_path / "policy.json")
    assert load_policy(tmp_path / "policy.json") == policy


def test_nothing_of_the_text_is_stored_and_what_is_stored_ends(tmp_path):
    """Counts, times and USD; a conversation that is over is dropped."""
    now = [1e9]
    store = SQLiteStore(tmp_path / "state.db", clock=lambda: now[0])
    talk = Talk(store=store)
    run(
        talk.policy,
        ask("an unusual question", tags=THREAD),
        talk.calls.call(ask("an unusual question")),
        ONCE,
    )
    with store._transaction() as cursor:
        rows = cursor.execute("SELECT key, value FROM state").fetchall()
    assert [key for key, _ in rows] == ["sticky/conversations/thread_id=7"]
    assert "unusual" not in rows[0][1]
    assert set(json.loads(rows[0][1])) == {"_v", "at", "decided", "caches", "_until"}
    now[0] += 900
    store.change([], lambda records: ([], None))
    with store._transaction() as cursor:
        assert cursor.execute("SELECT key FROM state").fetchall() == []
    store.close()


@pytest.mark.parametrize(
    "bad",
    [
        {"at": "x"},
        {"at": 1.0, "decided": 1, "caches": {"cloud": [1, 2]}},
        {"at": 1.0, "decided": 1, "caches": 3},
    ],
)
def test_a_record_that_cannot_be_read_costs_no_answer(bad, caplog):
    """The log names it, and the call is routed as without."""
    talk = Talk()
    talk.store.change(["sticky/conversations/thread_id=7"], lambda _: ([bad], None))
    assert talk.turn(SURE).route == "edge"
    assert "confroute reset" in caplog.text


def test_turns_of_many_threads_at_the_same_time():
    """Each conversation has its own record, and none is lost."""
    router = Router(
        edge=ScriptedModel([UNSURE], name="small"),
        cloud=ScriptedModel([Reply(text="four", usage=BILL)], name="large"),
        policy=(talk := Talk()).policy,
    )

    def talk_of(number):
        for _ in range(5):
            router.ask("2 + 2?", tags=(f"thread_id={number}",))

    threads = [threading.Thread(target=talk_of, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    keys = [f"sticky/conversations/thread_id={number}" for number in range(8)]
    records = talk.store.change(keys, lambda records: (records, records))
    assert [one["caches"]["cloud"][:2] for one in records] == [[800, 10]] * 8


async def test_turns_of_tasks_at_the_same_time():
    """The same on an event loop."""
    talk = Talk()
    router = Router(
        edge=ScriptedModel([UNSURE], name="small"),
        cloud=ScriptedModel([Reply(text="four", usage=BILL)], name="large"),
        policy=talk.policy,
    )
    answers = await asyncio.gather(*[router.aask("2 + 2?", tags=(f"thread_id={n}",)) for n in range(8)])
    assert {one.decision.route for one in answers} == {"cloud"}


def chat_of(talk):
    """A LangChain router whose edge is unsure of the first turn alone."""
    from langchain_confroute import ChatConfRoute
    from langchain_confroute.testing import ScriptedChat

    edge = ScriptedModel([UNSURE, SURE], name="small")
    cloud = ScriptedModel([Reply(text="four", usage=BILL)], name="large")
    return ChatConfRoute(edge=ScriptedChat(script=edge), cloud=ScriptedChat(script=cloud), policy=talk.policy)


@pytest.mark.parametrize("streamed", [False, True])
def test_langchain_names_the_thread(streamed):
    """By the metadata of the config."""
    talk = Talk()
    router, config = chat_of(talk), {"metadata": {"thread_id": "7"}}
    with record() as decisions:
        for _ in range(2):
            list(router.stream("2 + 2?", config)) if streamed else router.invoke("2 + 2?", config)
            talk.now += 240
    assert [one.layers["sticky"]["stayed"] for one in decisions] == [False, True]


def test_langgraph_names_the_thread():
    """An agent's thread is the conversation, and another thread is another."""
    from langchain.agents import create_agent
    from langgraph.checkpoint.memory import InMemorySaver

    talk = Talk()
    agent = create_agent(chat_of(talk), checkpointer=InMemorySaver())
    with record() as decisions:
        for thread in ("7", "8", "7"):
            agent.invoke({"messages": [("user", "2 + 2?")]}, {"configurable": {"thread_id": thread}})
            talk.now += 140
    assert [one.layers["sticky"]["stayed"] for one in decisions] == [False, False, True]


def test_llamaindex_names_the_thread():
    """By a label."""
    from llama_index.core.instrumentation.dispatcher import instrument_tags

    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    talk = Talk()
    llm = ConfRouteLLM(
        edge=ScriptedLLM(model=ScriptedModel([UNSURE, SURE], name="small")),
        cloud=ScriptedLLM(model=ScriptedModel([Reply(text="four", usage=BILL)], name="large")),
        policy=talk.policy,
    )
    with record() as decisions, instrument_tags({"confroute": {"tags": ["thread_id=7"]}}):
        llm.complete("2 + 2?")
        talk.now += 240
        llm.complete("2 + 2?")
    assert [one.route for one in decisions] == ["cloud", "cloud"]


turns = st.lists(st.tuples(st.booleans(), st.floats(1, 400)), min_size=1, max_size=25)


@given(turns, st.integers(0, 1000), st.floats(0, 1))
def test_no_turn_goes_to_an_earlier_tier_than_without(talk, cached, share):
    """Whatever comes: drafts that the policy would not keep are not kept, and between two turns that need it the cloud's renewals
    never cost more than its cache was worth."""
    price = Price(input_usd=1.0, output_usd=0.0, cached_usd=share)
    usage = Usage(input_tokens=1000, output_tokens=10, cached_tokens=cached)
    own = Talk(cloud=usage, prices=(TierPrice(tier="cloud", price=price),))
    paid = 0.0
    for unsure, after_s in talk:
        decision = own.turn(UNSURE if unsure else SURE, after_s=after_s)
        if decision.layers["sticky"]["stayed"]:
            paid += price.of(replace(usage, input_tokens=cached))
        elif decision.route == "cloud":
            paid = 0.0
        assert decision.route == "cloud" or not unsure
        assert paid <= cached * (1 - share) / 1e6 + 1e-12
