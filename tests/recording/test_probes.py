"""Probes of recorded hidden states: fitted out of fold, written, and read back."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")

from confroute.errors import CalibrationError, PolicyError
from confroute.recording import Row, Side
from confroute.recording.probes import fit_probe
from confroute.signals.probe import ProbeWeights
from confroute.stats.metrics import auroc


def test_a_fitted_probe_ranks_new_rows(tmp_path: Path) -> None:
    """States that reveal the outcome at one layer: the probe selects that layer, ranks out of fold, and loads as it was saved."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(3)
    rows = []
    for at in range(160):
        wrong = bool(rng.random() < 0.5)
        states = {f"layer.{layer}": rng.normal(size=64).astype(np.float32) for layer in (4, 8)}
        states["layer.8"][:4] += 1.5 if wrong else -1.5
        save_file(states, tmp_path / f"{at}.safetensors")
        rows.append(
            Row(
                id=str(at),
                edge=Side(text="A", quality=float(not wrong), model="m"),
                extra={"hidden": {"file": f"{at}.safetensors"}},
            )
        )
    fitted = fit_probe(rows, tmp_path)
    assert fitted.weights.layers == (8,)
    assert auroc(fitted.out_of_fold, fitted.target) > 0.95
    fitted.weights.save(tmp_path / "probe.safetensors")
    again = ProbeWeights.load(tmp_path / "probe.safetensors")
    x = rng.normal(size=(5, 64))
    assert again.probability(x).tolist() == fitted.weights.probability(x).tolist()
    assert (again.layers, again.about) == (fitted.weights.layers, fitted.weights.about)


@pytest.mark.slow
def test_a_probe_of_noise_ranks_by_chance(tmp_path: Path) -> None:
    """States without information give an AUROC near one half out of fold: no row leaks into its own prediction."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(4)
    rows = []
    for at in range(200):
        save_file({"layer.1": rng.normal(size=300).astype(np.float32)}, tmp_path / f"{at}.safetensors")
        side = Side(text="A", quality=float(rng.random() < 0.5))
        rows.append(Row(id=str(at), edge=side, extra={"hidden": {"file": f"{at}.safetensors"}}))
    fitted = fit_probe(rows, tmp_path)
    assert 0.35 < (auroc(fitted.out_of_fold, fitted.target) or 0) < 0.65


def test_too_few_rows_and_missing_files_are_refused(tmp_path: Path) -> None:
    """The errors name the number of rows and the path."""
    with pytest.raises(CalibrationError, match="0 rows with hidden states"):
        fit_probe([Row(id="a", edge=Side(text="A", quality=1.0))], tmp_path)
    with pytest.raises(PolicyError, match="is not a probe that this version can read"):
        ProbeWeights.load(tmp_path / "none.safetensors")
