"""Routers on recorded runs: their total cost, and the share of the quality gap that they recover for it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from confroute.bench import replay_recorded
from confroute.bench.costs import RATIOS, Calls, RankingRouter, SteppedRouter, at_equal_cost
from confroute.bench.recorded import (
    cross_fitted_combination,
    crossfit_heads,
    early_stopping,
    single_signals,
    with_column,
)
from confroute.bench.recorded_report import by_price, verdict
from confroute.cli import main
from confroute.errors import PolicyError
from confroute.fitting import Rates, table_of
from confroute.heads import FEATURES, encoder
from confroute.prices import Price
from confroute.recording import RecordedSample, RecordError, Row, Side, write_rows


def calls(n=400, seed=0, price=0.1):
    """Calls of an edge that is right on half of them, and flags of those."""
    generator = np.random.default_rng(seed)
    right = generator.random(n) < 0.5
    one = np.ones(n)
    return Calls(edge=right * 1.0, cloud=one, edge_usd=price * one, cloud_usd=one), right


def rows(n=60, *, priced=True, samples=0, prompts=True):
    """Rows whose log-probability reveals every error; the edge is right on every other one."""
    for at in range(n):
        right = at % 2
        texts = ["7" if right or k % 2 else str(k) for k in range(samples)]
        yield Row(
            id=str(at),
            prompt=f"How many {'apples' if right else 'pears'}, number {at}?" if prompts else None,
            reference=7,
            edge=Side(
                text="7" if right else "8",
                answer=7 if right else 8,
                logprobs=(-0.1 - (1 - right) - at / 1000,),
                quality=float(right),
                cost_usd=1.0 if priced else None,
                usage={"input_tokens": 99, "output_tokens": 1},
                samples=tuple(RecordedSample(text=text, answer=float(text)) for text in texts),
            ),
            cloud=Side(quality=1.0, cost_usd=10.0 if priced else None),
        )


def test_mixing_at_random_recovers_in_proportion_to_what_it_spends():
    """The area of random routing by the prompt is one half, whatever calls cost."""
    made, _ = calls()
    (result,) = at_equal_cost(
        made, [RankingRouter(name="random", kind="query", scores=np.zeros(made.n))], resamples=5
    )
    assert result.area.value == pytest.approx(0.5)
    assert result.recovered == pytest.approx((0.25, 0.5, 0.75))
    assert result.over_best_head.value == 0


def test_reading_the_answer_pays_for_the_draft_of_every_call():
    """A perfect order by the answer sends half of the calls, and all drafts cost 0.1: (0.1 + 0.5 - 0.1) / 0.9 of the way."""
    made, right = calls()
    answer = RankingRouter(name="answer", kind="answer", scores=~right * 1.0)
    prompt = RankingRouter(name="prompt", kind="query", scores=~right * 1.0)
    by_answer, by_prompt = at_equal_cost(made, [answer, prompt], resamples=5)
    share = float((~right).mean())
    assert by_answer.curve[0, 1] == pytest.approx(share / 0.9)
    assert by_prompt.curve[0, 1] == pytest.approx(share)
    assert by_answer.area.value < by_prompt.area.value


def test_samples_that_cannot_be_paid_recover_nothing():
    """At a budget below the cost of its samples a router recovers nothing."""
    made, right = calls()
    dear = RankingRouter(name="dear", kind="answer", scores=~right * 1.0, samples_usd=np.full(made.n, 0.45))
    free = RankingRouter(name="free", kind="answer", scores=~right * 1.0)
    first, second = at_equal_cost(made, [dear, free], resamples=5)
    assert first.recovered[0] == 0
    assert second.recovered[0] > 0.4
    assert first.over_best_head is None


def test_the_lead_shrinks_as_the_edge_gets_dearer():
    """A signal that detects errors leads a blind head while drafts are cheap, and no longer when they cost half."""
    made, right = calls(n=1000)
    noisy = RankingRouter(
        name="noisy", kind="answer", scores=~right + np.random.default_rng(1).normal(0, 0.7, made.n)
    )
    blind = RankingRouter(name="blind", kind="query", scores=np.zeros(made.n))
    result, _ = at_equal_cost(made, [noisy, blind], resamples=100)
    leads = [one.value for one in result.by_ratio]
    assert leads == sorted(leads, reverse=True)
    assert result.by_ratio[0].low > 0
    assert leads[RATIOS.index(0.1)] == pytest.approx(result.over_best_head.value)


def test_settings_are_ordered_by_their_cloud_calls():
    """The curve of a router with several settings does not depend on their order."""
    made, right = calls()
    sent = np.stack([np.ones(made.n, dtype=bool), ~right, np.zeros(made.n, dtype=bool)])
    steps = SteppedRouter(name="steps", sent=sent, edge_usd=np.full(sent.shape, 0.1))
    (result,) = at_equal_cost(made, [steps], resamples=5)
    assert result.curve[1].tolist() == pytest.approx([0, 1, 1])
    assert result.curve[0, 1] == pytest.approx((~right).mean() / 0.9)


def test_a_cloud_that_is_not_dearer_is_refused():
    """There is no cost to trade for quality."""
    made, _ = calls(price=1.0)
    with pytest.raises(PolicyError, match="dearer by 0 USD"):
        at_equal_cost(made, [], resamples=1)


def test_a_head_is_scored_on_calls_it_was_not_trained_on():
    """Labels that prompts do not reveal stay unpredictable; a head scored on its own rows would seem to know them."""
    made, right = calls()
    noise = np.random.default_rng(3).normal(size=(made.n, 6 + len(FEATURES))).astype(np.float32)
    informative = noise.copy()
    informative[:, 0] += 20 * ~right
    for vectors, low, high in ((noise, 0.3, 0.7), (informative, 0.85, 1.01)):
        scores = next(
            one.scores for one in crossfit_heads(vectors, made) if one.name == "ridge, features too"
        )
        ranks = np.argsort(np.argsort(scores))
        area = (ranks[~right].mean() - ((~right).sum() - 1) / 2) / right.sum()
        assert low < area < high


def test_unmeasured_calls_go_to_the_cloud_first():
    """A draft without evidence is sent before all others; a signal measured on few calls is left out."""
    made = [*rows(20)]
    table = table_of(made)
    few = with_column(table, "few", {"0": 0.5})
    half = with_column(few, "half", {str(at): at / 20 for at in range(12)})
    scores = {one.name: one.scores for one in single_signals(half)}
    assert "few" not in scores
    assert scores["half"][12:].min() > scores["half"][:12].max()


def test_a_combination_is_billed_for_all_its_signals():
    """Samples are paid for on every call; signals of the draft are free."""
    table = table_of(rows(160, samples=3))
    (free,) = cross_fitted_combination(table, "free", ["token_logprob.mean", "token_logprob.max"])
    (paid,) = cross_fitted_combination(table, "paid", ["token_logprob.mean", "self_consistency"])
    assert free.samples_usd is None
    assert paid.samples_usd == pytest.approx(np.full(160, 3.0))
    assert not [
        *cross_fitted_combination(table_of(rows(60)), "too few", ["token_logprob.mean", "token_logprob.max"])
    ]


def test_early_stopping_draws_fewer_samples():
    """No setting costs more than all samples, and some cost less."""
    table = table_of(rows(40, samples=4))
    agreement, first, second = early_stopping(table, Rates(), print)
    assert agreement.sent[2].tolist() == [at % 2 == 0 for at in range(40)]
    assert set(agreement.edge_usd[2]) == {2.0}
    assert first.edge_usd.max() <= 1 + 4
    assert first.edge_usd[2:].mean() < 1 + 4
    assert second.edge_usd[2:].mean() < first.edge_usd[2:].mean()
    assert not first.sent[0].any()
    assert first.sent[1].all()


def test_answers_that_others_read_are_compared_as_they_are():
    """A run whose answers were read by its own recorder, not from the texts as confroute would, is replayed all the same."""
    made = [
        replace(row, edge=replace(row.edge, text=f"The answer, I think, is {row.edge.answer} of 100."))
        for row in rows(40, samples=4)
    ]
    agreement, *_ = early_stopping(table_of(made), Rates(), print)
    assert agreement.sent[2].tolist() == [at % 2 == 0 for at in range(40)]


def test_a_recorded_run_has_both_axes():
    """Over the share of cloud calls drafts are paid too; at equal cost a signal that detects errors leads random mixing."""
    run = replay_recorded([*rows(40)], name="run", resamples=20)
    by_name = {one.name: one for one in run.results}
    assert by_name["token_logprob.mean"].cpt_first[1] == pytest.approx(25)
    assert by_name["token_logprob.mean"].usd[1] == pytest.approx(1000 * (1 + 0.25 * 10))
    assert by_name["random"].usd[1] < by_name["token_logprob.mean"].usd[1] * 2
    data = run.to_dict()["methods"]["token_logprob.mean"]
    assert data["kind"] == "answer"
    assert data["over_best_head"][0] > 0
    assert "beats" in verdict(run)
    with pytest.raises(RecordError, match="0 of 1 rows"):
        replay_recorded([Row(id="a", edge=Side(text="x"))], name="run")


def test_prices_replace_costs_that_were_not_recorded():
    """A cloud answer without a token count is billed for the edge's tokens, with a note; without prices calls are counted."""
    made = [*rows(40, priced=False)]
    rates = Rates(edge=Price(input_usd=1, output_usd=1), cloud=Price(input_usd=10, output_usd=10))
    priced = replay_recorded(made, name="run", rates=rates, resamples=5)
    assert priced.bench.strong_usd == pytest.approx(np.full(40, 100 * 10e-6))
    assert any("40 cloud answers" in note for note in priced.notes)
    unpriced = replay_recorded(made, name="run", resamples=5)
    assert unpriced.bench.strong_usd.tolist() == [1.0] * 40
    assert any("not known" in note for note in unpriced.notes)


def test_what_reading_the_answer_gains_is_told_by_price():
    """A signal that finds every error leads while the edge is cheap, in bold; a second answer is dear where the edge is."""
    run = replay_recorded([*rows(60, samples=3)], name="run", resamples=20)
    assert (
        "A second answer differs on 50% of the calls, where 100% of the quality that the edge loses is lost."
        in run.notes
    )
    head, _, *lines = by_price({"run": run})
    cells = {line.split(" | ")[1]: line.strip("| ").split(" | ")[2:] for line in lines}
    assert next(iter(cells)) == "token_logprob.mean"
    assert head.count("%") == len(RATIOS)
    assert cells["token_logprob.mean"][0].startswith("**+")
    assert float(cells["a second answer agrees"][-1]) < float(cells["token_logprob.mean"][-1].strip("*"))
    assert "prompt length" not in cells
    assert {"a second answer agrees", "self-consistency of 3, stops early"} <= {*cells}
    assert "semantic_entropy.probability" not in cells


@pytest.mark.slow
def test_heads_are_compared_with_the_signals(tmp_path):
    """With an encoder all heads are trained on other folds, and a combination reads the prompt too."""
    embed = encoder(
        lambda texts: [[float(text.count(c)) for c in "aps"] for text in texts], name="tiny", features=True
    )
    run = replay_recorded([*rows(130)], name="run", encoder=embed, cache=tmp_path, resamples=5)
    kinds = {one.name: one.kind for one in run.costs}
    assert {name for name, kind in kinds.items() if kind == "query"} >= {
        "kNN",
        "SW",
        "MF",
        "MLP",
        "cheap features",
        "mean of ridge, kNN and MLP",
    }
    assert kinds["combination, draft and prompt"] == "answer"


def test_command_replays_several_files(tmp_path, capsys):
    """JSON on standard output; tables, one plot per file and a page in the folder."""
    for name in ("first", "second"):
        write_rows(tmp_path / f"{name}.jsonl", rows(40, samples=2))
    files = [str(tmp_path / f"{name}.jsonl") for name in ("first", "second")]
    common = ["bench", "replay", "--recorded", *files, "--no-heads", "--resamples", "5"]
    assert main([*common, "--json", "--out", str(tmp_path / "out")]) == 0
    benchmarks = json.loads(capsys.readouterr().out)["benchmarks"]
    assert benchmarks["first"] == benchmarks["second"]
    assert benchmarks["first"]["methods"]["self_consistency"].keys() >= {
        "apgr",
        "cpt50",
        "cost_apgr",
        "over_best_head",
    }
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir()}
    assert written.keys() == {"first.svg", "second.svg", "recorded.html", "recorded.md"}
    assert "self-consistency of 2, stops early" in written["recorded.md"]
    assert main(common) == 0
    assert "at equal total cost" in capsys.readouterr().out
