"""The two heads with trained weights against hand calculations: training and estimates use the same network."""

import numpy as np
import pytest

from confroute.heads import MLP, MatrixFactorisation, networks
from confroute.heads.base import column_scales
from confroute.heads.networks import NetworkHead, apply_masks, ensemble_estimate

# Standardised, the columns are -1, 1 and 0: the second never varies and keeps its scale.
X, LABELS = [[3.0, 3.0], [7.0, 3.0]] * 4, [0, 1] * 4
LAYERS = {
    "inner": np.array([[[2.0], [0.0]], [[0.0], [1.0]]], np.float32),
    "bias": np.array([[[0.5]], [[0.0]]], np.float32),
    "outer": np.array([[[1.0]], [[3.0]]], np.float32),
    "offset": np.array([[-1.0], [0.0]], np.float32),
}
# Unit vectors of edge and cloud: (0.6, 0.8) and (0, 1), then (0, 1) and (1, 0); out times their difference: (-0.6, 0.4), (1, 0).
SPACES = {
    "projection": np.array([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]]], np.float32),
    "models": np.array([[[3.0, 4.0], [0.0, 4.0]], [[0.0, 5.0], [0.5, 0.0]]], np.float32),
    "out": np.array([[1.0, 2.0], [1.0, 0.0]], np.float32),
}


def sigmoid(logits):
    """Of a list."""
    return 1 / (1 + np.exp(-np.array(logits)))


def fake_training(monkeypatch, module, weights):
    """Make training return these weights; return a dict that will hold its arguments."""
    arguments = {}

    def train(forward, initialise, vectors, labels, **settings):
        arguments.update(settings, vectors=vectors, labels=labels)
        return weights

    monkeypatch.setattr(module, "train", train)
    return arguments


def test_a_network_of_two_members_by_hand(monkeypatch):
    """(7, 5) is (1, 2) standardised: units of 2.5 and 2, logits of 2.5 - 1 and 3 * 2; (3, 3) is (-1, 0): -1 and 0."""
    arguments = fake_training(monkeypatch, networks, LAYERS)
    head = MLP.fit(X, LABELS, hidden=1, members=2, draws=1, dropout=0.0)
    assert arguments["vectors"].tolist() == [[-1, 0], [1, 0]] * 4
    assert arguments["labels"].tolist() == LABELS
    estimate = head.estimate([[7.0, 5.0], [3.0, 3.0]])
    chances = sigmoid([[1.5, 6.0], [-1.0, 0.0]])
    assert estimate.cloud_wins == pytest.approx(chances.mean(axis=1), abs=1e-6)
    assert estimate.spread == pytest.approx(np.abs(chances[:, 0] - chances[:, 1]) / 2, abs=1e-6)
    assert head.dim == 2


def test_a_factorisation_of_two_members_by_hand(monkeypatch):
    """The members project (0.5, 1) to itself and to (1, 1): scores of -0.3 + 0.4 and 1."""
    arguments = fake_training(monkeypatch, networks, SPACES)
    head = MatrixFactorisation.fit(X, LABELS, rank=2, members=2, draws=1, dropout=0.0)
    assert np.asarray(arguments["vectors"]).tolist() == X, "vectors are not standardised"
    estimate = head.estimate([0.5, 1.0])
    chances = sigmoid([0.1, 1.0])
    assert estimate.cloud_wins == pytest.approx([chances.mean()], abs=1e-6)
    assert estimate.spread == pytest.approx([(chances[1] - chances[0]) / 2], abs=1e-6)
    assert isinstance(head, NetworkHead)
    # Squares of 9, 49 and twice 9 have a mean of 19.
    shape = []
    monkeypatch.setattr(networks, "_factorisation_network", lambda *args: shape.extend(args) or (None, None))
    MatrixFactorisation.fit(X, LABELS, rank=2, members=2, draws=1, dropout=0.25, noise=0.2)
    assert shape == [2, 2, 2, 0.25, pytest.approx(0.2 * 19**0.5)]


def test_dropout_is_applied_after_the_activation(monkeypatch):
    """The mask of a single unit leaves the offset alone, or scales the unit by one and a half."""
    fake_training(monkeypatch, networks, LAYERS)
    head = MLP.fit(X, LABELS, hidden=1, members=2, draws=40, dropout=1 / 3)
    assert sorted(set(head.outer[0, 0].tolist())) == [0.0, 1.5]
    kept = (head.outer[0, 0] > 0).mean()
    assert kept == pytest.approx(2 / 3, abs=0.25)
    mean = head.estimate([7.0, 5.0]).cloud_wins[0]
    kept_second = (head.outer[1, 0] > 0).mean()
    first = kept * sigmoid([2.75])[0] + (1 - kept) * sigmoid([-1.0])[0]
    second = kept_second * sigmoid([9.0])[0] + (1 - kept_second) * 0.5
    assert mean == pytest.approx((first + second) / 2, abs=1e-6)
    assert apply_masks(LAYERS["outer"], 40, rate=1 / 3, seed=0).tolist() == head.outer.tolist()


def test_spread_of_masks_by_hand():
    """Chances of 0.5 and 1 under two masks: 0.25 of spread from dropout, and none between members that agree."""
    estimate = ensemble_estimate(np.array([[[0.0, 100.0]], [[0.0, 100.0]]]))
    assert estimate.cloud_wins.tolist() == [0.75]
    assert (estimate.parts["dropout"].tolist(), estimate.parts["ensemble"].tolist()) == ([0.25], [0.0])
    # Members and masks differ at once: the variances add up.
    estimate = ensemble_estimate(np.array([[[0.0, 0.0]], [[0.0, 100.0]]]))
    assert estimate.cloud_wins.tolist() == [0.625]
    assert estimate.parts["ensemble"] == pytest.approx([0.125])
    assert estimate.parts["dropout"] == pytest.approx([(0.0625 / 2) ** 0.5])
    assert estimate.spread == pytest.approx([(0.125**2 + 0.0625 / 2) ** 0.5])


def test_a_constant_column_keeps_its_scale():
    """The others are divided by their deviation."""
    mean, scale = column_scales(np.array(X, np.float32))
    assert (mean.tolist(), scale.tolist()) == ([5.0, 3.0], [2.0, 1.0])
    assert column_scales(np.array([[0.0], [4.0]], np.float32))[1].tolist() == [2.0]


def test_training_and_estimates_use_the_same_network():
    """Without dropout and noise the trained networks give the logits calculated above, from small initial weights."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)

    def tensors(weights):
        return {name: torch.from_numpy(value) for name, value in weights.items()}

    start, forward = networks._mlp_network(2, 2, 1, 0.0)
    batch = torch.tensor([[[1.0, 2.0], [-1.0, 0.0]]]).repeat(2, 1, 1)
    assert forward(tensors(LAYERS), batch, generator).tolist() == [[1.5, -1.0], [6.0, 0.0]]
    assert {name: value.shape for name, value in start(generator).items()} == {
        name: value.shape for name, value in tensors(LAYERS).items()
    }
    start, forward = networks._factorisation_network(2, 2, 2, 0.0, 0.0)
    batch = torch.tensor([[[0.5, 1.0]]]).repeat(2, 1, 1)
    assert forward(tensors(SPACES), batch, generator).flatten().tolist() == pytest.approx([0.1, 1.0])
    assert {name: value.shape for name, value in start(generator).items()} == {
        name: value.shape for name, value in tensors(SPACES).items()
    }
    wide = networks._mlp_network(3, 400, 100, 0.0)[0](generator)
    assert float(wide["inner"].std()) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert float(wide["outer"].std()) == pytest.approx(100**-0.5, rel=0.15)
    assert not wide["bias"].any()
    assert not wide["offset"].any()
    wide = networks._factorisation_network(3, 400, 100, 0.0, 0.0)[0](generator)
    assert float(wide["projection"].std()) == pytest.approx(400**-0.5, rel=0.02)


def test_noise_has_the_given_length():
    """In training each coordinate of a prompt moves by 0.5 of the vectors' root mean square, which is 2."""
    torch = pytest.importorskip("torch")
    _, forward = networks._factorisation_network(1, 1, 1, 0.0, 0.5 * 2.0)
    weights = {
        "projection": torch.ones(1, 1, 1),
        "models": torch.tensor([[[-1.0], [1.0]]]),
        "out": torch.tensor([[0.5]]),
    }
    estimate = forward(weights, torch.full((1, 4000, 1), 2.0), torch.Generator().manual_seed(0))
    assert float(estimate.mean()) == pytest.approx(2.0, abs=0.05)
    assert float(estimate.std()) == pytest.approx(1.0, abs=0.05)
