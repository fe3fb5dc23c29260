"""Heads: what they learn, how sure they are, what a file of theirs holds."""

import json

import numpy as np
import pytest

from confroute.errors import CalibrationError, PolicyError, RequestError
from confroute.heads import (
    FEATURES,
    MLP,
    MatrixFactorisation,
    NearestNeighbours,
    Ridge,
    SimilarityRanking,
    encoder,
    load_head,
    prompt_features,
    save_head,
)
from confroute.heads.networks import masks

DIM = 16
HEADS = {
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
    """On new prompts each head ranks by the true chance, far above no rank at all."""
    x, _, chance = prompts(seed=1)
    found = trained[name].estimate(x)
    assert np.corrcoef(found.cloud_wins, chance)[0, 1] > 0.7
    assert found.cloud_wins.min() >= 0
    assert found.cloud_wins.max() <= 1
    assert (found.spread >= 0).all()
    assert found.spread.max() <= 0.5


@pytest.mark.parametrize("name", HEADS)
def test_a_head_knows_that_it_does_not_know(trained, name):
    """Prompts along dimensions that no training prompt has have the larger spread."""
    x, _, _ = prompts(seed=1)
    near, far = trained[name].estimate(x).spread, trained[name].estimate(x[:, ::-1]).spread
    assert np.median(far) > 1.2 * np.median(near)


@pytest.mark.parametrize("name", HEADS)
def test_one_prompt_is_estimated_as_in_a_batch(trained, name):
    """A single vector gets what it gets among others."""
    x, _, _ = prompts(seed=2)
    batch, one = trained[name].estimate(x[:20]), trained[name].estimate(x[7])
    assert one.cloud_wins == pytest.approx(batch.cloud_wins[7:8], abs=1e-5)
    assert one.spread == pytest.approx(batch.spread[7:8], abs=1e-5)


@pytest.mark.parametrize("name", ["mf", "mlp"])
def test_spread_is_the_sum_of_its_parts(trained, name):
    """Variance between members and variance under dropout add up, and both are there."""
    found = trained[name].estimate(prompts(seed=3)[0])
    total = found.parts["ensemble"] ** 2 + found.parts["dropout"] ** 2
    assert np.sqrt(total) == pytest.approx(found.spread)
    assert (found.parts["ensemble"] > 0).all()
    assert (found.parts["dropout"] > 0).all()


@pytest.mark.parametrize("name", ["mf", "mlp"])
def test_equal_seeds_give_equal_heads(name):
    """Training is reproducible."""
    x, y, _ = prompts(n=100)
    a, b = HEADS[name](x, y).estimate(x), HEADS[name](x, y).estimate(x)
    assert np.array_equal(a.cloud_wins, b.cloud_wins)


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_head_comes_back_whole(trained, name, tmp_path):
    """A head that was written and read says exactly what it said."""
    embed = encoder(lambda texts: [[float(len(text))] * DIM for text in texts], name="mine")
    save_head(trained[name], tmp_path / "head", identity=embed.identity())
    again = load_head(tmp_path / "head", embed)
    x, _, _ = prompts(seed=4)
    assert np.array_equal(again.estimate(x).cloud_wins, trained[name].estimate(x).cloud_wins)
    assert sorted(path.name for path in (tmp_path / "head").iterdir()) == ["head.json", "head.safetensors"]


def test_a_head_refuses_another_encoder(trained, tmp_path):
    """Another name, another size and another model of the same name are errors at load, not wrong routes later."""
    mine = encoder(lambda texts: np.ones((len(texts), DIM)), name="mine")
    folder = save_head(trained["mlp"], tmp_path, identity=mine.identity())
    with pytest.raises(PolicyError, match="use the same model or train again"):
        load_head(folder, encoder(lambda texts: np.ones((len(texts), DIM)), name="other"))
    with pytest.raises(PolicyError, match="use the same model or train again"):
        load_head(folder, encoder(lambda texts: np.ones((len(texts), DIM + 1)), name="mine"))
    with pytest.raises(PolicyError, match="another vector"):
        load_head(folder, encoder(lambda texts: np.tile(np.arange(DIM), (len(texts), 1)), name="mine"))


def test_a_head_is_not_saved_for_an_encoder_that_cannot_be_its_own(trained, tmp_path):
    """A head of 16 numbers does not go with an encoder of 3."""
    three = encoder(lambda texts: np.ones((len(texts), 3)), name="three")
    with pytest.raises(PolicyError, match="takes 16 numbers"):
        save_head(trained["mlp"], tmp_path, identity=three.identity())


@pytest.mark.parametrize("damage", ["missing", "json", "format", "kind", "encoder"])
def test_what_is_no_head_is_refused(trained, tmp_path, damage):
    """A missing, damaged or foreign folder is named with what is wrong."""
    mine = encoder(lambda texts: np.ones((len(texts), DIM)), name="mine")
    folder = save_head(trained["mlp"], tmp_path, identity=mine.identity())
    about = json.loads((folder / "head.json").read_text())
    if damage == "missing":
        (folder / "head.safetensors").unlink()
    elif damage == "json":
        (folder / "head.json").write_text("{")
    else:
        (folder / "head.json").write_text(json.dumps({**about, damage: "else"}))
    with pytest.raises(PolicyError, match=r"holds no (whole )?head|expected format|unknown kind"):
        load_head(folder, mine)


def test_a_head_of_another_version_is_refused(trained, tmp_path):
    """Version 1 had a tensor a member: the message says to train again, not what is missing."""
    mine = encoder(lambda texts: np.ones((len(texts), DIM)), name="mine")
    folder = save_head(trained["mlp"], tmp_path, identity=mine.identity())
    about = json.loads((folder / "head.json").read_text())
    (folder / "head.json").write_text(json.dumps({**about, "version": 1}))
    with pytest.raises(PolicyError, match=r"version 1, .* reads version 2.*train the head again"):
        load_head(folder, mine)


def test_ridge_by_hand():
    """Columns of -1 and 1 around 5: a weight of 8 * 0.5 / (8 + 8) = 0.25, residuals of 0.25, a spread of 0.25 |z| / sqrt(16)."""
    head = Ridge.fit([[4.0], [6.0]] * 4, [0, 1] * 4, penalty=8.0)
    found = head.estimate([[4.0], [5.0], [6.0], [7.0], [9.0]])
    assert found.cloud_wins == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], abs=1e-6)
    assert found.spread == pytest.approx([0.0625, 0.0, 0.0625, 0.125, 0.25], abs=1e-6)
    with pytest.raises(CalibrationError, match="penalty is 0"):
        Ridge.fit([[4.0], [6.0]] * 4, [0, 1] * 4, penalty=0)


def test_dropout_keeps_the_mean():
    """A unit is dropped or grows by 1 / (1 - rate)."""
    drawn = masks(2, 50, 200, rate=0.2, seed=0)
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
def test_data_that_teach_nothing_are_refused(name, vectors, labels):
    """Too few rows, equal labels, labels outside [0, 1], NaN and shapes that do not fit."""
    with pytest.raises(CalibrationError):
        HEADS[name](vectors, labels)


@pytest.mark.parametrize("name", HEADS)
def test_vectors_of_another_encoder_are_refused(trained, name):
    """Another length and values that are not finite raise."""
    with pytest.raises(RequestError, match=r"expected \(n, 16\)"):
        trained[name].estimate(np.ones(3))
    with pytest.raises(RequestError, match="not finite"):
        trained[name].estimate(np.full(DIM, np.inf))


def test_features_stand_behind_the_embedding():
    """An encoder with features has the embedding first and the features, scaled to it, behind."""
    embed = encoder(lambda texts: np.ones((len(texts), 2)), name="mine", features=True)
    found = embed(["Which?\nA. one\nB. two", "What is 7 % of $40?"])
    assert found.shape == (2, 2 + len(FEATURES))
    raw = dict(zip(FEATURES, prompt_features(["Which?\nA. one\nB. two"])[0], strict=True))
    assert raw["options"] == pytest.approx(0.2)
    assert found[0, 2 + FEATURES.index("options")] == pytest.approx(0.01)


def test_any_embedding_becomes_an_encoder():
    """LangChain's, LlamaIndex's and a function embed the same way, each with its name."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from llama_index.core.embeddings import MockEmbedding

    for source, name in (
        (DeterministicFakeEmbedding(size=4), "DeterministicFakeEmbedding"),
        (MockEmbedding(embed_dim=4), "unknown"),
        (lambda texts: np.ones((len(texts), 4)), "mine"),
    ):
        made = encoder(source, name="mine" if name == "mine" else None)
        assert made(("a", "b")).shape == (2, 4)
        assert made.name == name
    with pytest.raises(PolicyError, match="expected a model name"):
        encoder(7)


def test_the_default_encoder_is_the_local_one_with_its_hash():
    """Without arguments MiniLM is taken, and its weights' hash is part of the identity."""
    found = encoder().identity()
    assert (found.name, found.dim) == ("all-minilm-l6-v2", 384)
    assert found.sha256 is not None
    assert len(found.sha256) == 64


@pytest.mark.parametrize("k", [1, 7, 64, 600])
def test_the_nearest_are_those_of_a_full_sort(k):
    """What is left out before the search is never one of the k nearest."""
    x, y, _ = prompts()
    query, head = prompts(seed=5)[0][:20], NearestNeighbours.fit(x, y, k=k)
    nearest = np.argsort(query @ head.vectors.T, axis=1)[:, -k:]
    assert head.estimate(query).cloud_wins == pytest.approx(y[nearest].mean(axis=1), abs=1e-12)


def test_neighbours_by_hand():
    """Of similarities 1, 0.9 and 0 the first two vote 1 and 0; the far one is not asked.

    They count 1 and exp(-1) = 0.3679 of an observation: of 2 + 1.3679 the mean is 2 / 3.3679 = 0.5938, and the variance
    0.5938 * 0.4062 / 4.3679 = 0.05522. The one nearest alone: 2 / 3, and 2 / 9 / 4.
    """
    x = [[2.0, 0.0], [0.9, 0.19**0.5], *[[0.0, 1.0]] * 6]
    labels = [1, 0, 1, 1, 1, 1, 1, 1]
    two = NearestNeighbours.fit(x, labels, k=2).estimate([3.0, 0.0])
    assert two.cloud_wins == pytest.approx([0.5])
    assert two.spread == pytest.approx([0.05522**0.5], rel=1e-3)
    one = NearestNeighbours.fit(x, labels, k=1).estimate([3.0, 0.0])
    assert (one.cloud_wins[0], one.spread[0]) == (1.0, pytest.approx((2 / 9 / 4) ** 0.5, rel=1e-3))


@pytest.mark.parametrize("k", [0, 9])
def test_neighbours_are_some_of_the_prompts(k):
    """From one to all of them."""
    x, labels = np.eye(8), [0, 1] * 4
    assert NearestNeighbours.fit(x, labels, k=8).estimate(x[0]).cloud_wins.tolist() == [0.5]
    with pytest.raises(CalibrationError, match="expected 1 to 8"):
        NearestNeighbours.fit(x, labels, k=k)
