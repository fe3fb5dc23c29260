"""What a signal is worth that few rows chose, against the default that nobody chose.

    CONFROUTE_DATA=... python benchmarks/few_rows.py [--draws 200]

Of n rows of a recorded run of Qwen, as many as `fit` holds back choose the signal; its APGR and the default's are measured on all rows that
did not choose. Means over random draws, and the tenth percentile of the chosen one's.
"""

import argparse

import numpy as np
import recorded_rows

from confroute.fitting.choice import chosen, distinct_orders, live_columns
from confroute.fitting.fit import selection_size
from confroute.fitting.table import table_of
from confroute.stats.metrics import apgr

DEFAULT = "token_logprob.mean"
SIZES = (20, 40, 60, 90)


def worth(table, column):
    """APGR of a signal; drafts without it go to the cloud first."""
    return apgr(np.nan_to_num(table.signal(column), nan=np.inf), table.edge_quality, table.cloud_quality)


def main():
    """Print one line a run and size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args().draws
    for dataset in ("mmlu_test", "gsm8k_test"):
        table = table_of([*recorded_rows.qwen(dataset)])
        columns = distinct_orders(table, live_columns(table))
        best = max(columns, key=lambda name: worth(table, name))
        print(
            f"{dataset}, {table.n} rows, {len(columns)} signals, best of all rows: {best} {worth(table, best):.3f}"
        )
        for n in (size for size in SIZES if size <= table.n):
            found, usual = [], []
            for draw in range(draws):
                choosing = np.random.default_rng(draw).permutation(table.n) < selection_size(n)
                rest = table.part(~choosing)
                name = chosen(table.part(choosing), combine=False, columns=columns).column
                found.append(worth(rest, name))
                usual.append(worth(rest, DEFAULT))
            low = np.quantile(found, 0.1)
            print(
                f"  {n} rows, {selection_size(n)} choose: {np.mean(found):.3f} (tenth percentile {low:.3f}), default {np.mean(usual):.3f}"
            )


if __name__ == "__main__":
    main()
