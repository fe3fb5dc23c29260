"""Heads and encoders: what heads learn, how certain they are, and how they are saved and loaded."""

import json

import numpy as np
import pytest

from confroute.errors import CalibrationError, PolicyError, RequestError
from confroute.heads import (
    FEATURES,
    MLP,
    GaussianProcess,
    MatrixFactorisation,
    NearestNeighbours,
    Ridge,
    SimilarityRanking,
    encoder,
    load_head,
    prompt_features,
    save_head,
)
from confroute.heads.networks import dropout_masks

DIM = 16
HEADS = {
    "gp": lambda x, y: GaussianProcess.fit(x, y, keep=200),
    "knn": lambda x, y: NearestNeighbours.fit(x, y, k=25),
    "sw": SimilarityRanking.fit,
    "mf": lambda x, y: MatrixFactorisation.fit(x, y, rank=32, members=4, epochs=30, batch=32),
    "mlp": lambda x, y: MLP.fit(x, y, hidden=32, members=4, epochs=30, batch=32),
    "ridge": lambda x, y: Ridge.fit(x, y, penalty=10.0),
}


def prompts(n=600, seed=0):
    """Unit vectors in a cone, with labels that depend on one direction."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, DIM))
    x[:, 0] += 4.0
    x[:, DIM // 2 :] = 0
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    chance = 1 / (1 + np.exp(-12 * x[:, 1]))
    return x.astype(np.float32), (generator.random(n) < chance).astype(float), chance


@pytest.fixture(scope="module")
def trained():
    """Every head, trained on the same prompts."""
    x, y, _ = prompts()
    return {name: fit(x, y) for name, fit in HEADS.items()}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_learns_the_direction(trained, name):
    """On new prompts the estimates of each head correlate with the true probability."""
    x, _, chance = prompts(seed=1)
    estimate = trained[name].estimate(x)
    assert np.corrcoef(estimate.cloud_wins, chance)[0, 1] > 0.7
    assert estimate.cloud_wins.min() >= 0
    assert estimate.cloud_wins.max() <= 1
    assert (estimate.spread >= 0).all()
    assert estimate.spread.max() <= 0.5


@pytest.mark.parametrize("name", HEADS)
def test_the_spread_is_larger_far_from_the_training_prompts(trained, name):
    """Prompts along dimensions that no training prompt has get the larger spread."""
    x, _, _ = prompts(seed=1)
    near, far = trained[name].estimate(x).spread, trained[name].estimate(x[:, ::-1]).spread
    assert np.median(far) > 1.2 * np.median(near)


@pytest.mark.parametrize("name", HEADS)
def test_one_prompt_is_estimated_as_in_a_batch(trained, name):
    """A single vector gets the same estimate as within a batch."""
    x, _, _ = prompts(seed=2)
    batch, one = trained[name].estimate(x[:20]), trained[name].estimate(x[7])
    assert one.cloud_wins == pytest.approx(batch.cloud_wins[7:8], abs=1e-5)
    assert one.spread == pytest.approx(batch.spread[7:8], abs=1e-5)


@pytest.mark.parametrize("name", ["mf", "mlp"])
def test_spread_is_the_sum_of_its_parts(trained, name):
    """Variance between members and variance under dropout add up, and both are there."""
    estimate = trained[name].estimate(prompts(seed=3)[0])
    total = estimate.parts["ensemble"] ** 2 + estimate.parts["dropout"] ** 2
    assert np.sqrt(total) == pytest.approx(estimate.spread)
    assert (estimate.parts["ensemble"] > 0).all()
    assert (estimate.parts["dropout"] > 0).all()


@pytest.mark.parametrize("name", ["mf", "mlp"])
def test_equal_seeds_give_equal_heads(name):
    """Training is reproducible."""
    x, y, _ = prompts(n=100)
    a, b = HEADS[name](x, y).estimate(x), HEADS[name](x, y).estimate(x)
    assert np.array_equal(a.cloud_wins, b.cloud_wins)


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_head_comes_back_whole(trained, name, tmp_path):
    """A head that was saved and loaded gives exactly the same estimates."""
    embed = encoder(lambda texts: [[float(len(text))] * DIM for text in texts], name="mine")
    save_head(trained[name], tmp_path / "head", identity=embed.identity())
    again = load_head(tmp_path / "head", embed)
    x, _, _ = prompts(seed=4)
    assert np.array_equal(again.estimate(x).cloud_wins, trained[name].estimate(x).cloud_wins)
    assert sorted(path.name for path in (tmp_path / "head").iterdir()) == ["head.json", "head.safetensors"]


def test_a_head_refuses_another_encoder(trained, tmp_path):
    """Another name, another size and another model of the same name fail at load, instead of routing wrongly later."""
    mine = encoder(lambda texts: np.ones((len(texts), DIM)), name="mine")
    folder = save_head(trained["mlp"], tmp_path, identity=mine.identity())
    with pytest.raises(PolicyError, match="use the same model or train again"):
        load_head(folder, encoder(lambda texts: np.ones((len(texts), DIM)), name="other"))
    with pytest.raises(PolicyError, match="use the same model or train again"):
        load_head(folder, encoder(lambda texts: np.ones((len(texts), DIM + 1)), name="mine"))
    with pytest.raises(PolicyError, match="another vector"):
        load_head(folder, encoder(lambda texts: np.tile(np.arange(DIM), (len(texts), 1)), name="mine"))


def test_a_head_is_not_saved_for_an_encoder_that_cannot_be_its_own(trained, tmp_path):
    """A head on vectors of length 16 does not fit an encoder with vectors of length 3."""
    three = encoder(lambda texts: np.ones((len(texts), 3)), name="three")
    with pytest.raises(PolicyError, match="vectors of length 16"):
        save_head(trained["mlp"], tmp_path, identity=three.identity())


@pytest.mark.parametrize("damage", ["missing", "json", "format", "kind", "encoder"])
def test_a_damaged_head_is_refused(trained, tmp_path, damage):
    """The error names the folder and what is wrong with it."""
    mine = encoder(lambda texts: np.ones((len(texts), DIM)), name="mine")
    folder = save_head(trained["mlp"], tmp_path, identity=mine.identity())
    about = json.loads((folder / "head.json").read_text())
    if damage == "missing":
        (folder / "head.safetensors").unlink()
    elif damage == "json":
        (folder / "head.json").write_text("{")
    else:
        (folder / "head.json").write_text(json.dumps({**about, damage: "else"}))
    with pytest.raises(
        PolicyError, match=r"no head can be read|incomplete or damaged|expected format|unknown kind"
    ):
        load_head(folder, mine)


def test_a_head_of_another_version_is_refused(trained, tmp_path):
    """Version 1 had one tensor per member: the error says to train again, instead of naming a missing tensor."""
    mine = encoder(lambda texts: np.ones((len(texts), DIM)), name="mine")
    folder = save_head(trained["mlp"], tmp_path, identity=mine.identity())
    about = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**about, "version": 1}))
    with pytest.raises(PolicyError, match=r"version 1, .* reads version 2.*train the head again"):
        load_head(folder, mine)


def test_ridge_by_hand():
    """Columns of -1 and 1 around 5: a weight of 8 * 0.5 / (8 + 8) = 0.25, residuals of 0.25, a spread of 0.25 |z| / sqrt(16)."""
    head = Ridge.fit([[4.0], [6.0]] * 4, [0, 1] * 4, penalty=8.0)
    estimate = head.estimate([[4.0], [5.0], [6.0], [7.0], [9.0]])
    assert estimate.cloud_wins == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], abs=1e-6)
    assert estimate.spread == pytest.approx([0.0625, 0.0, 0.0625, 0.125, 0.25], abs=1e-6)
    with pytest.raises(CalibrationError, match="penalty is 0"):
        Ridge.fit([[4.0], [6.0]] * 4, [0, 1] * 4, penalty=0)


def test_dropout_keeps_the_mean():
    """A unit is either dropped or scaled by 1 / (1 - rate)."""
    drawn = dropout_masks(2, 50, 200, rate=0.2, seed=0)
    assert np.unique(drawn).tolist() == [0.0, 1.25]
    assert drawn.mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [
        (np.ones((4, 3)), [0, 1, 0, 1]),
        (np.ones((9, 3)), [0.5] * 9),
        (np.ones((9, 3)), [0] * 8 + [2]),
        (np.full((9, 3), np.nan), [0] * 8 + [1]),
        (np.ones((9, 3)), [0, 1]),
    ],
)
@pytest.mark.parametrize("name", HEADS)
def test_unusable_training_data_are_refused(name, vectors, labels):
    """Too few rows, equal labels, labels outside [0, 1], NaN and mismatched shapes."""
    with pytest.raises(CalibrationError):
        HEADS[name](vectors, labels)


@pytest.mark.parametrize("name", HEADS)
def test_vectors_of_another_encoder_are_refused(trained, name):
    """Vectors of another length, and values that are not finite, raise."""
    with pytest.raises(RequestError, match=r"expected \(n, 16\)"):
        trained[name].estimate(np.ones(3))
    with pytest.raises(RequestError, match="not finite"):
        trained[name].estimate(np.full(DIM, np.inf))


def test_features_are_appended_to_the_embedding():
    """An encoder with features returns the embedding followed by the features, scaled to match it."""
    embed = encoder(lambda texts: np.ones((len(texts), 2)), name="mine", features=True)
    vectors = embed(["Which?\nA. one\nB. two", "What is 7 % of $40?"])
    assert vectors.shape == (2, 2 + len(FEATURES))
    raw = dict(zip(FEATURES, prompt_features(["Which?\nA. one\nB. two"])[0], strict=True))
    assert raw["options"] == pytest.approx(0.2)
    assert vectors[0, 2 + FEATURES.index("options")] == pytest.approx(0.01)


def test_any_embedding_becomes_an_encoder():
    """Embeddings of LangChain and of LlamaIndex, and a function, all become encoders and keep their names."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from llama_index.core.embeddings import MockEmbedding

    for source, name in (
        (DeterministicFakeEmbedding(size=4), "DeterministicFakeEmbedding"),
        (MockEmbedding(embed_dim=4), "unknown"),
        (lambda texts: np.ones((len(texts), 4)), "mine"),
    ):
        embed = encoder(source, name="mine" if name == "mine" else None)
        assert embed(("a", "b")).shape == (2, 4)
        assert embed.name == name
    with pytest.raises(PolicyError, match="expected a model name"):
        encoder(7)


def test_the_default_encoder_is_the_local_one_with_its_hash():
    """Without arguments the encoder is MiniLM, and the hash of its weights is part of the identity."""
    identity = encoder().identity()
    assert (identity.name, identity.dim) == ("all-minilm-l6-v2", 384)
    assert identity.sha256 is not None
    assert len(identity.sha256) == 64


@pytest.mark.parametrize("k", [1, 7, 64, 600])
def test_the_nearest_are_those_of_a_full_sort(k):
    """The pre-selection before the search never drops one of the k nearest."""
    x, y, _ = prompts()
    query, head = prompts(seed=5)[0][:20], NearestNeighbours.fit(x, y, k=k)
    nearest = np.argsort(query @ head.vectors.T, axis=1)[:, -k:]
    assert head.estimate(query).cloud_wins == pytest.approx(y[nearest].mean(axis=1), abs=1e-12)


def test_neighbours_by_hand():
    """Of the similarities 1, 0.9 and 0, the first two vote 1 and 0; the far one does not vote.

    They count 1 and exp(-1) = 0.3679 of an observation. With the prior's 2 the mean is 2 / 3.3679 = 0.5938 and the
    variance 0.5938 * 0.4062 / 4.3679 = 0.05522. With the nearest alone they are 2 / 3 and 2 / 9 / 4.
    """
    x = [[2.0, 0.0], [0.9, 0.19**0.5], *[[0.0, 1.0]] * 6]
    labels = [1, 0, 1, 1, 1, 1, 1, 1]
    two = NearestNeighbours.fit(x, labels, k=2).estimate([3.0, 0.0])
    assert two.cloud_wins == pytest.approx([0.5])
    assert two.spread == pytest.approx([0.05522**0.5], rel=1e-3)
    one = NearestNeighbours.fit(x, labels, k=1).estimate([3.0, 0.0])
    assert (one.cloud_wins[0], one.spread[0]) == (1.0, pytest.approx((2 / 9 / 4) ** 0.5, rel=1e-3))


@pytest.mark.parametrize("k", [0, 9])
def test_k_is_between_one_and_the_number_of_prompts(k):
    """All prompts may vote; none, or more than there are, is refused."""
    x, labels = np.eye(8), [0, 1] * 4
    assert NearestNeighbours.fit(x, labels, k=8).estimate(x[0]).cloud_wins.tolist() == [0.5]
    with pytest.raises(CalibrationError, match="expected 1 to 8"):
        NearestNeighbours.fit(x, labels, k=k)
