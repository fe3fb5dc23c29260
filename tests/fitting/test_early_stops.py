"""Whether a prior that stops draws holds on the calls at hand."""

import json
from dataclasses import replace

import pytest

from confroute import Cascade, SelfConsistency, SemanticEntropy, save_policy
from confroute.budget import Budget, Paced
from confroute.cli import main
from confroute.fitting import EarlyStops, early_stops, replay
from confroute.recording import RecordedSample, Row, Side, write_rows
from confroute.signals import BetaBinomial, EwensMixture

SURE = BetaBinomial.fit([0] * 30, [10] * 30, eps=0.05, source="questions that the edge knows")
MEANT = EwensMixture.fit([1] * 30, [11] * 30, eps=0.05, source="questions that the edge knows")


def of(texts, name):
    """A row whose draft is "7" and whose samples say these."""
    samples = tuple(RecordedSample(text=text) for text in texts)
    edge = Side(model="small", text="7", quality=1.0, samples=samples)
    return Row(id=name, prompt="How many?", edge=edge, cloud=Side(text="7", quality=1.0))


def like_the_prior(n=20):
    """Samples that all agree, as those that the prior was fitted to."""
    return [of(["7"] * 10, f"like {i}") for i in range(n)]


def unlike(n=20):
    """Samples that agree at first, and then differ from all before them."""
    return [of([*"7778", *map(str, range(20, 26))], f"unlike {i}") for i in range(n)]


def check(signal, rows):
    """What `early_stops` says of a cascade with that signal; half of the draws may differ."""
    policy = Cascade.of(signal, 0.5)
    return early_stops(policy, rows, replay(policy, rows))


@pytest.mark.parametrize(
    "signal",
    [SelfConsistency(n=10, stop=SURE), SemanticEntropy(n=10, stop=MEANT)],
    ids=["counts", "meanings"],
)
def test_a_prior_of_other_data_is_told(signal):
    """On calls like its own nothing changes; on others most routes do, and the words name its data and what to do."""
    held = check(signal, like_the_prior())
    assert (held.changed, held.warning) == (0, None)
    broken = check(signal, unlike())
    assert broken.changed > 10
    assert "20 calls" in broken.warning
    assert "prior allows 0.05" in broken.warning
    assert "questions that the edge knows" in broken.warning


def test_only_priors_stop_early():
    """Draws that stop where nothing can change are whole draws."""
    assert check(SelfConsistency(n=10), unlike()) is None


@pytest.mark.parametrize(
    ("changed", "warned"), [(5, False), (10, False), (11, False), (12, True), (30, True)]
)
def test_a_share_above_eps_may_be_chance(changed, warned):
    """Of 100 calls at an eps of .05, 12 changes or more have a probability of .0043; scipy: binom.sf(11, 100, .05)."""
    found = EarlyStops(changed=changed, n=100, priors=(SURE,))
    assert (found.warning is not None) == warned
    assert EarlyStops(changed=12, n=100, priors=(SURE,)).p_value == pytest.approx(0.00427, abs=1e-4)


def test_an_eps_of_0_allows_no_change():
    """There is nothing to test then."""
    exact = replace(SURE, eps=0.0)
    assert EarlyStops(changed=0, n=100, priors=(exact,)).warning is None
    assert EarlyStops(changed=1, n=100, priors=(exact,)).warning is not None


def test_apply_warns(tmp_path, capsys):
    """Through wrappers too; as JSON and in words."""
    policy = Paced(
        policy=Cascade.of(SelfConsistency(n=10, stop=replace(SURE, source="run\x1b[2J")), 0.5),
        budgets=(Budget(limit=1000, unit="calls"),),
    )
    save_policy(policy, tmp_path / "policy.json")
    write_rows(tmp_path / "run.jsonl", unlike())
    assert main(["apply", str(tmp_path / "policy.json"), str(tmp_path / "run.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "it was fitted to other data" in said
    assert "\x1b" not in said, "a file's words command the terminal"
    assert main(["apply", str(tmp_path / "policy.json"), str(tmp_path / "run.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["early_stops"]["changed"] > 10
