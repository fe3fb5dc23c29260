"""Certified thresholds: refusals with numbers, and promises kept on synthetic data of known risk."""

import dataclasses
import json
import math

import numpy as np
import pytest

from confroute import Cascade, Gate, Threshold, TokenLogprob
from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.policy import GroupThreshold
from confroute.policy.guarantee import betting, forwarded, severity


def step_rows(n, generator, *, risky=0.5, rate=0.3):
    """Uncertainty uniform in [0, 1]; an answer above `risky` fails with probability `rate`, none below."""
    u = generator.random(n)
    return u, 1.0 - ((u > risky) & (generator.random(n) < rate))


def step_risk(threshold):
    """The exact risk of a threshold on `step_rows`."""
    return 0.3 * max(0.0, threshold - 0.5)


@pytest.mark.parametrize("loss", ["regret", "net"])
@pytest.mark.parametrize("horizon", [None, math.inf])
def test_the_true_risk_keeps_the_bound(loss, horizon):
    """In at least 1 - delta of 100 draws, where a plain quantile of the same rows breaks it in about half."""
    generator = np.random.default_rng(1)
    broken = plain = 0
    for _ in range(100):
        u, edge = step_rows(400, generator)
        threshold = Threshold.certify(u, edge, alpha=0.05, delta=0.1, loss=loss, horizon=horizon)
        broken += step_risk(threshold.value) > 0.05
        order = np.argsort(u)
        fits = np.flatnonzero(np.cumsum(1 - edge[order]) / u.size <= 0.05)
        plain += step_risk(u[order][fits[-1]]) > 0.05
    assert broken <= 0.1 * 100 + 2 * math.sqrt(100 * 0.09)
    assert plain > 30


def test_the_measured_loss_of_as_many_calls_keeps_the_bound():
    """The promise over a horizon: in 400 draws the loss of fresh rows, as measured, exceeds alpha in at most delta."""
    generator = np.random.default_rng(2)
    broken = {None: 0, math.inf: 0}
    for _ in range(400):
        u, edge = step_rows(300, generator)
        fresh, right = step_rows(300, generator)
        for horizon in broken:
            t = Threshold.certify(u, edge, alpha=0.05, delta=0.1, horizon=horizon).value
            broken[horizon] += ((fresh <= t) & (right == 0)).mean() > 0.05
    assert broken[None] <= 0.1 * 400 + 2 * math.sqrt(400 * 0.09)
    assert broken[math.inf] > broken[None], "the long run alone says less about so few calls"


# Losses of a failed answer, with their mean; what is lost to a cloud that is always right.
SEVERITIES = {
    "one": (lambda generator, n: np.ones(n), 1.0),
    "half": (lambda generator, n: np.full(n, 0.5), 0.5),
    "beta": (lambda generator, n: generator.beta(0.5, 1.0, n), 1 / 3),
    "eleven": (lambda generator, n: generator.integers(0, 11, n) / 10, 0.5),
    "ends": (lambda generator, n: generator.choice([0.1, 1.0], n), 0.55),
}
CASES = [
    *((loss, "one", 0.1) for loss in ("regret", "error", "net", "selective", "shortfall")),
    *((loss, name, 0.1) for loss in ("regret", "shortfall") for name in ("half", "beta", "eleven", "ends")),
    *(("selective", "eleven", 0.1), ("net", "beta", 0.1), ("regret", "one", None)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "kind", "delta"), CASES)
def test_every_method_keeps_its_promise_in_two_thousand_draws(loss, kind, delta):
    """Closed-form risk, delta = 0.1: broken in at most 10 % of draws, up to three standard errors."""
    generator = np.random.default_rng(3)
    drawn, mean = SEVERITIES[kind]
    draws, broken, risks = 2000, 0, []
    for _ in range(draws):
        u, right = step_rows(300, generator)
        edge = 1.0 - (1.0 - right) * drawn(generator, u.size)
        t = Threshold.certify(u, edge, alpha=0.05, delta=delta, loss=loss).value
        risks.append(step_risk(t) * mean / (t if loss == "selective" else 1))
        broken += risks[-1] > 0.05
    if delta is None:
        assert np.mean(risks) <= 0.05 + 3 * np.std(risks) / math.sqrt(draws)
    else:
        assert broken / draws <= 0.1 + 3 * math.sqrt(0.09 / draws)


@pytest.mark.slow
@pytest.mark.parametrize("graded", [False, True])
def test_a_promised_quality_is_kept_where_the_cloud_fails_too(graded):
    """The cloud fails on 4 % of all calls, whatever the edge does: 2,000 draws, broken in at most 10 %."""
    generator = np.random.default_rng(4)
    broken, made, scale = 0, 0, 0.5 if graded else 1.0
    for _ in range(2000):
        u, right = step_rows(400, generator)
        cloud = 1.0 - scale * (generator.random(400) < 0.04)
        try:
            t = Threshold.certify(
                u, 1.0 - scale * (1.0 - right), cloud, alpha=0.07 * scale, loss="shortfall"
            ).value
        except UnmetPromiseError:
            continue
        made += 1
        broken += 0.04 * (1 - t) + step_risk(t) > 0.07
    assert made > 1000
    assert broken / 2000 <= 0.1 + 3 * math.sqrt(0.09 / 2000)


def test_a_promised_quality_counts_the_clouds_errors():
    """The edge's best 500 answers are right, and the cloud is wrong on 100 of the others, which no threshold undoes."""
    u = np.arange(1000.0)
    edge, cloud = (u < 500).astype(float), np.where((u >= 500) & (u % 5 == 0), 0.0, 1.0)
    found = Threshold.certify(u, edge, cloud, alpha=0.15, loss="shortfall")
    assert (found.certificate.method, found.certificate.horizon) == ("ltt-binomial", None)
    kept = u <= found.value
    assert found.certificate.observed == pytest.approx(np.where(kept, 1 - edge, 1 - cloud).mean())
    assert found.value < Threshold.certify(u, edge, cloud, alpha=0.15, loss="error").value
    with pytest.raises(UnmetPromiseError, match="1000 rows lose 100, and ltt-binomial allows at most 87"):
        Threshold.certify(u, edge, cloud, alpha=0.1, loss="shortfall")


@pytest.mark.parametrize("loss", ["regret", "error"])
def test_graded_losses_keep_more_than_by_hoeffding_and_bentkus(loss):
    """A bound that knows the variance: with the same loss on every other answer, Hoeffding and Bentkus stop earlier."""
    u = np.arange(300.0)
    edge = np.where(u < 150, 1.0, 0.9)
    found = Threshold.certify(u, edge, alpha=0.05, loss=loss)
    # At 0.0333 lost: exp(-300 kl(0.0333, 0.05)) = 0.36, and e P(Bin(300, 0.05) <= 10) = 0.31.
    assert found.certificate.observed > 1 / 30


def test_betting_beats_hoeffding_where_most_differences_are_zero():
    """Net loss is mostly 0: the bet proves what a bound that ignores the variance cannot."""
    generator = np.random.default_rng(0)
    values = generator.choice([-1.0, 0.0, 1.0], 1000, p=[0.02, 0.95, 0.03])
    assert betting(values, 0.05, 0.1, low=-1.0) < 0.1
    assert math.exp(-2 * 1000 * ((0.05 - values.mean()) / 2) ** 2) > 0.1


def test_net_loss_may_use_answers_better_than_the_clouds():
    """The edge is right where the cloud is wrong as often as the other way round: no regret bound, but a net one."""
    generator = np.random.default_rng(0)
    u, edge = generator.random(2000), (generator.random(2000) < 0.8).astype(float)
    cloud = (generator.random(2000) < 0.8).astype(float)
    net = Threshold.certify(u, edge, cloud, alpha=0.05, loss="net")
    regret = Threshold.certify(u, edge, cloud, alpha=0.05, loss="regret")
    assert net.value > 0.95 > regret.value


def test_selective_risk_is_about_the_kept_answers_only():
    """Half of all calls could fail unseen in the mean over all; among the kept ones they count in full."""
    u = np.linspace(0, 1, 1000)
    edge = (np.arange(1000) % 25 != 0).astype(float)  # 4 % fail everywhere
    with pytest.raises(CalibrationError, match="cannot be guaranteed"):
        Threshold.certify(u, edge, alpha=0.02, loss="selective")
    assert 0.2 < Threshold.certify(u, edge, alpha=0.02, loss="regret").value < 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 100}, "at least 150 rows"),
        ({"n": 100, "horizon": math.inf}, "at least 114 rows"),
        ({"n": 20}, "20 calibration rows are too few: .*record more calls"),
        ({"wrong": True}, "with the 30 most certain answers kept, .* 500 rows lose 30"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"delta": 1.0}, "delta 1.0"),
        ({"delta": 0.0}, "delta 0.0"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"loss": "other"}, "loss is 'other'"),
        ({"loss": "net", "delta": None}, "never falls"),
        ({"wrong": True, "delta": None}, "expected regret"),
        ({"horizon": 0.5}, "horizon is 0.5"),
        ({"grid": [-1.0]}, "no threshold of the grid"),
        ({"nan": True}, "1 of 500"),
    ],
)
def test_what_cannot_be_promised_is_refused_with_the_numbers(change, words):
    """Too few rows, an edge that fails at once, levels that promise nothing, columns that are no numbers."""
    settings = {"alpha": 0.02, "delta": 0.1, **change}
    n = settings.pop("n", 500)
    u, edge = np.linspace(0, 1, n), np.ones(n)
    if settings.pop("wrong", False):
        edge[:] = 0
    if settings.pop("nan", False):
        u[0] = math.nan
    with pytest.raises(CalibrationError, match=words):
        Threshold.certify(u, edge, **settings)


def test_groups_share_delta():
    """Two groups, each at half the delta; a group that cannot be promised is named."""
    generator = np.random.default_rng(0)
    u, edge = step_rows(1200, generator)
    group = ["maths" if i % 2 else "law" for i in range(1200)]
    found = Threshold.certify_groups(group, u, edge, alpha=0.05, delta=0.1)
    assert {t.certificate.delta for t in found.values()} == {0.05}
    assert found["law"].certificate.group == "law"
    edge[::2] = 0
    with pytest.raises(CalibrationError, match="group 'law', one of 2"):
        Threshold.certify_groups(group, u, edge, alpha=0.05)


def test_a_certificate_travels_in_the_file(tmp_path):
    """What was promised, on which data, comes back from the policy file, and is plain JSON."""
    u, edge = step_rows(400, np.random.default_rng(0))
    threshold = Threshold.certify(u, edge, alpha=0.05, date="2026-01-02")
    group = GroupThreshold(tag="maths", threshold=threshold)
    gate = Gate(signal=TokenLogprob(), threshold=threshold, by_tag=(group,))
    policy = Cascade(gates=(gate,))
    policy.save(tmp_path / "policy.json")
    assert Cascade.load(tmp_path / "policy.json") == policy
    told = json.loads(json.dumps(threshold.certificate.to_dict()))
    assert (told["date"], told["n"], told["horizon"]) == ("2026-01-02", 400, 400)
    other = Threshold.certify(u, 1 - edge * 0.0, alpha=0.05).certificate
    assert other.data_hash != told["data_hash"], "other grades are other data"


def test_severities_by_hand():
    """Four rows, every loss."""
    edge, cloud = np.array([1, 0, 0, 1.0]), np.array([1, 1, 0, 0.0])
    expected = {
        "regret": [0, 1, 0, 0],
        "error": [0, 1, 1, 0],
        "net": [0, 1, 0, -1],
        "selective": [0, 1, 1, 0],
        "shortfall": [0, 1, 1, 0],
    }
    for loss, values in expected.items():
        assert severity(loss, edge, cloud).tolist() == values
        assert forwarded(loss, cloud).tolist() == ([0, 0, 1, 1] if loss == "shortfall" else [0] * 4)


def test_certificates_are_values():
    """Frozen, and refused where they promise nothing."""
    certificate = Threshold.certify(np.linspace(0, 1, 400), np.ones(400), alpha=0.05).certificate
    with pytest.raises(dataclasses.FrozenInstanceError):
        certificate.alpha = 0.5
    with pytest.raises(ValueError, match=r"expected delta in \(0, 1\)"):
        dataclasses.replace(certificate, delta=2.0)


@pytest.mark.parametrize(("n", "alpha", "delta"), [(60, 0.05, 0.1), (114, 0.02, 0.1), (80, 0.1, 0.05)])
def test_the_walk_stops_at_the_closed_form(n, alpha, delta):
    """Long run, all uncertainties different: exactly the answers before failure k + 1 are kept, k by the binomial tail."""
    most = max(
        k
        for k in range(-1, n)
        if k < 0 or sum(math.comb(n, j) * alpha**j * (1 - alpha) ** (n - j) for j in range(k + 1)) <= delta
    )
    wrong = np.zeros(n)
    wrong[40:] = 1.0
    u = np.arange(n, dtype=float)
    found = Threshold.certify(u, 1 - wrong, alpha=alpha, delta=delta, horizon=math.inf, grid=u)
    assert found.value == 40 + most - 1


def test_tied_uncertainties_are_kept_or_sent_together():
    """A threshold keeps what equals it, so a tie counts whole, failures first or last."""
    u = np.repeat(np.arange(10.0), 20)
    wrong = np.zeros(200)
    wrong[[100, 119]] = 1.0
    wrong[140:] = 1.0
    values = [
        Threshold.certify(u[o], 1 - wrong[o], alpha=0.05, delta=0.1, horizon=math.inf).value
        for o in (np.arange(200), np.arange(200)[::-1])
    ]
    assert values == [6.0, 6.0]
