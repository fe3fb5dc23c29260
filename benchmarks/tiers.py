"""Whether a third model pays: three tiers against the best pair at equal total cost, on calls that gave no thresholds.

    CONFROUTE_DATA=... python benchmarks/tiers.py [--data FOLDER] [--models llama3.2-1b llama3.1-8b llama3.1-405b] [--splits 20] [--json]

From the recorded nine models on MMLU and MedMCQA: half of the rows, drawn at random, give each chain its front of thresholds (the answer
token's negative log-probability on every tier); on the other half each chain is mixed along its front to one total cost, discarded drafts
included. Costs are the recorded ones. `gain` is the quality of all tiers minus that of the best pair at this cost; which pair that is, the
first half says. Its interval is that of 1000 paired resamples of the held-out rows of the first split; `splits` is the mean gain over random
halves, with the standard deviation between them. `confroute fit` does the same for one goal and says which chain to deploy.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _recorded import DATA, lines

from confroute.fitting.chain import chain_of, tables_of
from confroute.fitting.chain_choice import curve_of, quality_at
from confroute.recording import Middle, Row, Side

NAMES = ("llama3.2-1b", "llama3.1-8b", "llama3.1-405b")
# Total cost as a share of always asking the last model.
COSTS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
