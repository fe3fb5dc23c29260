"""Whether certified thresholds keep their promise on real recorded data, and what it costs.

    CONFROUTE_DATA=... python benchmarks/guarantee.py [--splits 1000] [--delta 0.1] [--json]

In every random split half of the rows calibrate and half test. `broken`: share of splits whose measured test regret exceeds alpha,
with a Wilson 95 % interval; for a certificate it should be at most delta. `long run` promises the mean only, which a finite
test half scatters around; `quantile` is the boldest threshold whose calibration regret is at most alpha, without any promise.
`oracle` is the share of calls that would have to go to the cloud if every answer's grade were known. A calibration that is
refused sends every call to the cloud.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _recorded import gsm8k, nine_models

from confroute import Threshold
from confroute.errors import CalibrationError

ALPHAS = (0.02, 0.05, 0.10)


def wilson(share, n):
    """95 % interval of a share."""
    z = 1.96
    middle, width = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - width) / (1 + z * z / n), (middle + width) / (1 + z * z / n)


def quantile(u, regret, alpha):
    """The boldest threshold whose regret on these rows is at most alpha."""
    order = np.argsort(u, kind="stable")
    ends = np.append(u[order][1:] > u[order][:-1], True)
    fits = np.flatnonzero(ends & (np.cumsum(regret[order]) / u.size <= alpha))
    return u[order][fits[-1]] if fits.size else -math.inf


def certified(u, edge, cloud, alpha, delta, horizon):
    """The certified threshold; below everything where none can be promised."""
    try:
        return Threshold.certify(u, edge, cloud, alpha=alpha, delta=delta, horizon=horizon).value
    except CalibrationError:
        return -math.inf


def experiment(columns, alpha, delta, splits):
    """Share of broken splits, refusals and mean cloud share of each method on one dataset."""
    u, edge, cloud = columns
    regret = np.maximum(0, cloud - edge)
    generator = np.random.default_rng(0)
    methods = {
        "certified": lambda c: certified(u[c], edge[c], cloud[c], alpha, delta, None),
        "long run": lambda c: certified(u[c], edge[c], cloud[c], alpha, delta, math.inf),
        "quantile": lambda c: quantile(u[c], regret[c], alpha),
    }
    broken, share, refused = ({name: [] for name in methods} for _ in range(3))
    for _ in range(splits):
        order = generator.permutation(u.size)
        calibration, test = order[: u.size // 2], order[u.size // 2 :]
        for name, method in methods.items():
            kept = u[test] <= (t := method(calibration))
            broken[name].append((regret[test] * kept).mean() > alpha)
            share[name].append(1 - kept.mean())
            refused[name].append(t == -math.inf)
    found = {
        name: {
            "broken": float(np.mean(broken[name])),
            "broken_ci": wilson(float(np.mean(broken[name])), splits),
            "cloud_share": float(np.mean(share[name])),
            "refused": float(np.mean(refused[name])),
        }
        for name in methods
    }
    return found | {"oracle": {"cloud_share": max(0.0, float(regret.mean()) - alpha)}}


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--delta", type=float, default=0.1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = {name: nine_models(name)[:3] for name in ("mmlu", "medmcqa")} | {"gsm8k": gsm8k()}
    results = {
        name: {str(a): experiment(columns, a, options.delta, options.splits) for a in ALPHAS}
        for name, columns in data.items()
    }
    if options.json:
        print(json.dumps(results))
        return
    print(f"{options.splits} splits, delta {options.delta:g}")
    print(
        f"{'data':8} {'n':>5} {'alpha':>5} {'method':10} {'broken':>7} {'95 %':>15} {'cloud share':>11} {'refused':>8}"
    )
    for name, by_alpha in results.items():
        for alpha, methods in by_alpha.items():
            for method, row in methods.items():
                ci = "-" if "broken" not in row else "{:.3f} to {:.3f}".format(*row["broken_ci"])
                broken, refused = (f"{row[k]:.3f}" if k in row else "-" for k in ("broken", "refused"))
                size = data[name][0].size
                print(
                    f"{name:8} {size:5} {alpha:>5} {method:10} {broken:>7} {ci:>15} {row['cloud_share']:11.3f} {refused:>8}"
                )


if __name__ == "__main__":
    main()
