"""The Gaussian process: exact up to the prompts it keeps, close to that beyond, and doubtful where no prompt was near."""

import numpy as np
import pytest

from confroute.errors import CalibrationError
from confroute.heads import FEATURES, GaussianProcess, Ridge, encoder

NOISE = 2.0


def prompts(n, seed=0, dim=6):
    """Vectors of different lengths, and labels that bend with the first direction."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, dim))
    chance = 0.5 + 0.4 * np.sin(3 * x[:, 0] / np.linalg.norm(x, axis=1))
    return x, (generator.random(n) < chance).astype(float), chance


def exact(x, y, new, *, noise):
    """Equations 2.25 and 2.26 of Rasmussen and Williams with a unit prior, the prior variance estimated by maximum likelihood."""
    z, t = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, new))

    def kernel(a, b):
        return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(axis=2))

    inverse = np.linalg.inv(kernel(z, z) + noise * np.eye(len(z)))
    across, centred = kernel(t, z), y - y.mean()
    variance = centred @ inverse @ centred / len(y)
    left = 1 - np.einsum("ij,jk,ik->i", across, inverse, across)
    return y.mean() + across @ inverse @ centred, np.sqrt(variance * left)


def test_it_is_exact_up_to_the_prompts_that_are_kept():
    """Mean and spread are those of the textbook."""
    x, y, _ = prompts(120)
    new, _, _ = prompts(40, seed=1)
    estimate = GaussianProcess.fit(x, y, noise=NOISE, keep=120).estimate(new)
    mean, spread = exact(x, y, new, noise=NOISE)
    assert estimate.cloud_wins == pytest.approx(mean.clip(0, 1), abs=2e-3)
    assert estimate.spread == pytest.approx(spread, rel=0.02)


def test_a_part_of_the_prompts_stands_for_all():
    """With a quarter of the prompts kept it still learns from every label: closer to the exact mean than a fit to that quarter."""
    x, y, _ = prompts(800, dim=3)
    new, _, _ = prompts(200, seed=1, dim=3)
    mean, _ = exact(x, y, new, noise=NOISE)
    part = np.random.default_rng(0).permutation(800)[:200]
    sparse = GaussianProcess.fit(x, y, noise=NOISE, keep=200).estimate(new)
    alone = GaussianProcess.fit(x[part], y[part], noise=NOISE, keep=200).estimate(new)
    errors = [np.abs(one.cloud_wins - mean.clip(0, 1)).mean() for one in (sparse, alone)]
    assert errors[0] < 0.005
    assert errors[0] < errors[1] / 4


def test_it_learns_what_a_line_cannot():
    """Labels that bend are followed, better than by the linear head."""
    x, y, _ = prompts(1500)
    new, _, chance = prompts(300, seed=1)
    process, line = (
        np.corrcoef(head.estimate(new).cloud_wins, chance)[0, 1]
        for head in (GaussianProcess.fit(x, y, noise=1), Ridge.fit(x, y))
    )
    assert process > 0.94
    assert process > line + 0.04


def test_features_are_standardised_and_the_embedding_has_length_one():
    """Neither the embedding's length nor a feature's unit matters."""
    x, y, _ = prompts(100, dim=9)
    scaled = x.copy()
    scaled[:, :5] *= 7
    scaled[:, 5:] = 1000 * scaled[:, 5:] + 3
    heads = [GaussianProcess.fit(one, y, features=4) for one in (x, scaled)]
    assert heads[0].estimate(x).cloud_wins == pytest.approx(heads[1].estimate(scaled).cloud_wins, abs=1e-4)


def test_features_alone_are_enough():
    """An encoder of features has no embedding in front of them."""
    x, y, _ = prompts(100, dim=4)
    assert np.ptp(GaussianProcess.fit(x, y, features=4).estimate(x).cloud_wins) > 0.1


def test_repeated_prompts_do_no_harm():
    """Prompts of which there are many copies keep the kernel solvable, and their labels add up."""
    x, y, _ = prompts(10)
    estimate = GaussianProcess.fit(np.repeat(x, 50, axis=0), np.repeat(y, 50)).estimate(x)
    assert np.abs(estimate.cloud_wins - y).mean() < 0.2
    assert np.isfinite(estimate.spread).all()


def test_it_takes_the_vectors_of_an_encoder_with_features():
    """As many columns as FEATURES has follow the embedding."""
    embed = encoder(
        lambda texts: [[text.count(c) + 1.0 for c in "aeiou"] for text in texts], name="v", features=True
    )
    texts = [f"{'Prove that' if at % 2 else 'Name'} {at}" for at in range(40)]
    head = GaussianProcess.fit(embed(texts), [at % 2 for at in range(40)], features=len(FEATURES), noise=0.1)
    prove, name = head.estimate(embed(["Prove that 77", "Name 77"])).cloud_wins
    assert prove > 0.7 > 0.3 > name


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"features": 7}, "features is 7: expected 0 to 6, the number of columns"),
        ({"features": -1}, "features is -1"),
        ({"width": 0}, "width is 0: expected a number above 0"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"keep": 0}, "keep is 0"),
    ],
)
def test_settings_outside_their_range_are_refused(setting, words):
    """The error names the setting, what was given and what was expected."""
    x, y, _ = prompts(20)
    with pytest.raises(CalibrationError, match=words):
        GaussianProcess.fit(x, y, **setting)
