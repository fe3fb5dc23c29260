"""`LocalEmbedder` computes what sentence-transformers computes."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from confroute.errors import ModelError
from confroute.models.embed import LocalEmbedder

pytestmark = pytest.mark.local
TEXTS = ["the cat sat", "on", "the mat where the other cat sat as well", "", "a " * 200]


def test_the_published_similarities() -> None:
    """The real encoder gives the similarities in sentence-transformers' documentation."""
    try:
        embed = LocalEmbedder.load("all-minilm-l6-v2")
    except (ModelError, ImportError) as error:
        pytest.skip(f"all-minilm-l6-v2 cannot be had here: {error}")
    vectors = embed(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    assert vectors.shape == (3, embed.dim) == (3, 384)
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-3)


def test_mean_over_the_mask(encoder_folder: Path) -> None:
    """Batches, sorting and padding change nothing: each row is the mean over that text's own tokens, of length 1."""
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = (
        AutoModel.from_pretrained(encoder_folder),
        AutoTokenizer.from_pretrained(encoder_folder),
    )
    network.eval()
    texts = TEXTS * 20
    vectors = LocalEmbedder.load(encoder_folder)(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    for text, row in list(zip(texts, vectors, strict=True))[: len(TEXTS)]:
        ids = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            mean = network(**ids).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(row, (mean / mean.norm()).numpy(), atol=1e-5)
    np.testing.assert_allclose(vectors[:5], vectors[-5:], atol=1e-5)


def test_products_in_bfloat16_hardly_turn_the_vectors(encoder_folder: Path) -> None:
    """They give unit vectors near those of float32, from the same weights; another dtype is refused."""
    exact, low = LocalEmbedder.load(encoder_folder), LocalEmbedder.load(encoder_folder, dtype="bfloat16")
    assert (exact.dtype, low.dtype) == ("float32", "bfloat16")
    vectors = low(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    cosines = (vectors * exact(TEXTS)).sum(axis=1)
    assert (cosines > 0.999).all()
    assert not np.array_equal(vectors, exact(TEXTS))
    with pytest.raises(ModelError, match="dtype 'float16': expected 'auto' or one of float32, bfloat16"):
        LocalEmbedder.load(encoder_folder, dtype="float16")


def test_no_texts(encoder_folder: Path) -> None:
    """No texts give no rows of the right width."""
    embed = LocalEmbedder.load(encoder_folder)
    assert embed([]).shape == (0, embed.dim)


def test_threads_share_one_encoder(encoder_folder: Path) -> None:
    """Several threads get the same as one."""
    alone = LocalEmbedder.load(encoder_folder)(TEXTS)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda _: LocalEmbedder.load(encoder_folder)(TEXTS), range(12)))
    for vectors in together:
        np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_unknown_pooling_is_refused_by_name(encoder_folder: Path, tmp_path: Path) -> None:
    """Another pooling, another module, or no modules.json: refused, not guessed."""
    other = Path(shutil.copytree(encoder_folder, tmp_path / "cls"))
    (other / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(ModelError, match="pooling_mode_cls_token"):
        LocalEmbedder.load(other)
    modules = json.loads((other / "modules.json").read_text())
    (other / "modules.json").write_text(
        json.dumps([*modules, {"path": "3", "type": "sentence_transformers.models.Dense"}])
    )
    with pytest.raises(ModelError, match="Dense"):
        LocalEmbedder.load(other)
    (other / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"modules\.json"):
        LocalEmbedder.load(other)
