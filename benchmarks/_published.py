"""Numbers that others published, and what the replay is to reach, for the results page."""

BENCHMARKS = ("mt-bench", "mmlu", "gsm8k")

# CPT 50 / CPT 80 / APGR. RouteLLM: arXiv 2406.18665; the best of each is of augmented training data. The Confidence-Driven router: arXiv 2502.11021, by
# secondary sources, since its full table could not be had.
PUBLISHED = {
    "RouteLLM, published best of each": {
        "mt-bench": "13.4 / 31.3 / .802",
        "mmlu": "35.4 / 71.6 / .603",
        "gsm8k": "33.6 / 63.3 / .622",
    },
    "RouteLLM SW, published, battles alone": {
        "mt-bench": "37.9 / 59.0 / .610",
        "mmlu": "55.8 / 80.3 / .473",
        "gsm8k": "54.4 / 82.1 / .475",
    },
    "RouteLLM MF, published, battles alone": {
        "mt-bench": "25.3 / 74.3 / .580",
        "mmlu": "45.0 / 76.9 / .524",
        "gsm8k": "53.6 / 85.2 / .475",
    },
    "RouteLLM SW, published, augmented": {
        "mt-bench": "23.2 / 36.0 / .759",
        "mmlu": "35.4 / 71.6 / .603",
        "gsm8k": "41.2 / 72.2 / .568",
    },
    "RouteLLM MF, published, augmented": {
        "mt-bench": "13.4 / 31.3 / .802",
        "mmlu": "35.5 / 71.4 / .597",
        "gsm8k": "38.8 / 72.6 / .565",
    },
    "Confidence-Driven, published": {
        "mt-bench": "27.3 / 55.6 / not reported",
        "gsm8k": "41.9 / 75.3 / not reported",
    },
}

# What RouteLLM's own evaluation code gives on these files, to be reproduced.
REFERENCE = {
    "random, by RouteLLM's code": {
        "mt-bench": "51.3 / - / -",
        "mmlu": "50.0 / - / -",
        "gsm8k": "48.8 / - / -",
    },
    "oracle, to reproduce": {"mt-bench": "- / - / .964", "mmlu": "- / - / 1.285", "gsm8k": "- / - / 1.121"},
    "prompt length, to reproduce": {
        "mt-bench": "- / - / .547",
        "mmlu": "- / - / .586",
        "gsm8k": "- / - / .598",
    },
}

# Benchmark, words, which of our rows, APGR.
AIMS = (
    ("mmlu", "above the published best", "best", 0.603),
    ("mmlu", "by the rule, above the tuned encoder that was not chosen by it", "best", 0.648),
    ("mmlu", "aim for heads trained on other data", "best", 0.66),
    ("mmlu", "five-fold in-domain, above MiniLM and ridge", "in-domain", 0.664),
    ("mmlu", "five-fold in-domain, aim for the ensemble", "in-domain", 0.70),
    ("gsm8k", "above the published best", "best", 0.622),
    ("gsm8k", "aim for heads trained on other data", "best", 0.66),
    ("mt-bench", "above its prompt length", "best", 0.547),
    ("mt-bench", "above the published best", "best", 0.802),
)
