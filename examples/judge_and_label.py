"""Let a judge compare two answers and grade one, and label prompts by which model answers better.

All three models are local; take a judge from a family of neither model it judges, and a larger one than this.
"""

import argparse
from pathlib import Path

from confroute.judge import Judge, Pair, Single, judge_usage
from confroute.labels import Labeller, label_rows, read_labels
from confroute.models.resolution import resolve
from confroute.recording import Row, Side

SUMS = {"What is 2 + 2? Reply with the number only.": 4, "What is 9 + 8? Reply with the number only.": 17}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cloud-model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--judge-model", default="qwen2.5-coder-1.5b")
    args = parser.parse_args()

    judge = Judge(panel=(f"local:{args.judge_model}",), concurrency=1, max_tokens=96)
    (comparison,) = judge.compare(
        [Pair(id="1", question="What is 9 + 8?", a="9 + 8 is 17.", b="It is 18.", reference="17")]
    )
    (grade,) = judge.grade([Single(id="1", question="What is 9 + 8?", answer="It is 18.", reference="17")])
    # An error has neither winner nor grade: a judge that cannot say is counted, never guessed.
    print("compared in both orders:", comparison.winner or comparison.error)
    print("graded:", grade.error if grade.quality is None else f"{grade.quality:.2f}")
    print("asked the judge", judge_usage([comparison, grade]).calls, "times")

    labeller = Labeller(
        edge=resolve("local:qwen2.5-coder-0.5b"),
        cloud=resolve(f"local:{args.cloud_model}"),
        source="correctness",
        max_tokens=4,
    )
    rows = [
        Row(id=str(at), prompt=text, reference=sum_, edge=Side())
        for at, (text, sum_) in enumerate(SUMS.items())
    ]
    out = Path("labels.jsonl")
    print(label_rows(rows, labeller, out))
    for label in read_labels(out):
        print(f"label of {label.id}: {label.winner} by {label.source}")
