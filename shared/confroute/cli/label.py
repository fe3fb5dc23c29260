"""``confroute label``: label prompts with the model that answers them better, as training data for heads."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli.options import (
    add_dtype,
    add_judge,
    add_model,
    add_private,
    count,
    file_to_make,
    model_of,
    panel_of,
)
from confroute.cli.terminal import one_sided, say
from confroute.errors import PolicyError

if TYPE_CHECKING:
    from confroute.judge import Judge
    from confroute.labels import Engine, Labeller, Summary
    from confroute.signals.equivalence import Equivalence

FAILED = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "label",
        help="label each prompt with the model that answers it better",
        description="Ask both models several times, measure how much each disagrees with itself (semantic entropy), and "
        "label each prompt: the model with the lower entropy wins, a small difference is a tie. Run the same command again to continue "
        "after an interruption. Models: local:NAME, openai:MODEL, ollama:MODEL or MODULE:OBJECT.",
    )
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="prompts or recorded rows, JSON lines, plain or .gz"
    )
    parser.add_argument(
        "--out",
        type=file_to_make,
        required=True,
        metavar="FILE",
        help="append the labels to this file, JSON lines",
    )
    add_model(parser, "edge", "model a; not needed if DATA holds its samples")
    add_model(parser, "cloud", "model b; as above")
    add_dtype(parser)
    parser.add_argument(
        "--keep",
        type=file_to_make,
        metavar="FILE",
        help="keep all answers in this file as a recorded run, which can be labelled again",
    )
    _add_settings(parser)
    _add_engine(parser)
    parser.set_defaults(run=run)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how labels are made")
    group.add_argument(
        "--source",
        choices=("entropy", "correctness", "judge", "mixed"),
        default="entropy",
        help="what decides which answer is better; mixed: the first of correctness, judge and entropy that is available (default: %(default)s)",
    )
    group.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="answers of each model (default: as many as DATA holds if the model is not given, otherwise 5)",
    )
    group.add_argument(
        "--temperature", type=float, default=1.0, help="temperature of the samples (default: %(default)s)"
    )
    group.add_argument("--max-tokens", type=int, default=256, help="longest answer (default: %(default)s)")
    group.add_argument(
        "--tau",
        type=float,
        default=0.1,
        help="smallest relative difference that is not a tie (default: %(default)s)",
    )
    group.add_argument(
        "--estimator",
        choices=("paper", "normalised", "discrete"),
        default="paper",
        help="how the entropy is estimated; discrete needs no log-probabilities (default: %(default)s)",
    )
    group.add_argument(
        "--same",
        default="embedding",
        metavar="text|embedding|nli:MODEL",
        help="what decides whether two answers mean the same (default: %(default)s)",
    )
    _add_judging(group)


def _add_judging(group: argparse._ArgumentGroup) -> None:
    add_judge(group, "for --source judge and mixed")
    add_private(group)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="what runs the work: this process, or Ray (default: %(default)s)",
    )
    parser.add_argument(
        *("--concurrency", "--workers"),
        type=count,
        default=4,
        metavar="N",
        help="prompts at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="address of a Ray cluster (default: one on this machine)"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N lines of DATA")
    parser.add_argument(
        "--max-failures",
        type=count,
        default=20,
        metavar="N",
        help="stop after so many failures in a row (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Label the prompts and print a summary; exit code 1 if prompts failed."""
    from confroute.cli.progress import progress
    from confroute.labels import label_rows, read_inputs

    labeller = _labeller(args)
    total = sum(1 for _ in read_inputs(args.data, limit=args.limit))
    if total == 0:
        msg = f"{args.data} holds no rows"
        raise PolicyError(msg)
    # Standard output holds the summary; Ray reports workers that died there.
    with (
        _closing_cache(labeller),
        redirect_stdout(sys.stderr),
        progress(total, unit="prompts") as tick,
    ):
        summary = label_rows(
            read_inputs(args.data, limit=args.limit),
            labeller,
            args.out,
            engine=_engine(args),
            keep=args.keep,
            max_failures=args.max_failures,
            progress=lambda result: tick(result.label is not None),
        )
    _show(args, summary)
    return FAILED if summary.failed else 0


def _closing_cache(labeller: Labeller) -> AbstractContextManager[object]:
    cache = labeller.judge.cache if labeller.judge is not None else None
    return nullcontext() if cache is None else cache


def _labeller(args: argparse.Namespace) -> Labeller:
    from confroute.labels import Labeller
    from confroute.policy.rules import KeepPrivate

    return Labeller(
        edge=model_of(args, "edge"),
        cloud=model_of(args, "cloud"),
        source=args.source,
        samples=_samples(args),
        temperature=args.temperature,
        max_tokens=args.max_tokens,
        tau=args.tau,
        estimator=args.estimator,
        equivalence=_equivalence(args.same),
        judge=_judge(args),
        private=KeepPrivate(patterns=tuple(args.private or ())),
    )


def _samples(args: argparse.Namespace) -> int:
    """How many answers of each model are compared: as asked for, else the fewest that every row holds of a model without a name."""
    from confroute.labels import read_inputs

    if args.samples is not None:
        return int(args.samples)
    recorded = [name for name in ("edge", "cloud") if getattr(args, name) is None]
    counts = [
        len(side.samples)
        for row in (read_inputs(args.data, limit=args.limit) if recorded else ())
        for name, side in (("edge", row.edge), ("cloud", row.cloud))
        if name in recorded and side is not None
    ]
    # A row with fewer cannot be labelled, and is no reason to look at less of the others.
    return min((count for count in counts if count > 1), default=5)


def _equivalence(name: str) -> Equivalence:
    from confroute.signals.equivalence import SameEmbedding, SameEntailment, SameText

    kind, _, model = name.partition(":")
    if kind == "nli" and model:
        return SameEntailment(model=model)
    if name == "text":
        return SameText()
    if name == "embedding":
        return SameEmbedding()
    msg = f"--same is {name!r}: expected text, embedding or nli:MODEL"
    raise PolicyError(msg)


def _judge(args: argparse.Namespace) -> Judge | None:
    from confroute.judge import Judge, ReplyCache

    if not args.judge:
        return None
    cache = None if args.judge_cache is None else ReplyCache(args.judge_cache)
    # Prompts are labelled at the same time already.
    return Judge(panel=panel_of(args), cache=cache, concurrency=1)


def _engine(args: argparse.Namespace) -> Engine:
    if args.engine == "ray":
        from confroute.labels.ray import RayEngine

        return RayEngine(workers=args.concurrency, address=args.ray_address)
    from confroute.labels import LocalEngine

    return LocalEngine(concurrency=args.concurrency)


def _show(args: argparse.Namespace, summary: Summary) -> None:
    if args.json:
        say(json.dumps(summary.to_dict(), indent=2))
    else:
        won = summary.winners
        say(f"{summary.labelled} labelled, {summary.kept} there before, {summary.failed} failed: {args.out}")
        say(f"edge wins {won['a']}, cloud wins {won['b']}, tie {won['tie']}")
    names = {"edge wins": "a", "cloud wins": "b", "ties": "tie"}
    if hint := one_sided({words: summary.winners[name] for words, name in names.items()}, "labels"):
        say(hint, err=True)
    if summary.failed:
        say(f"failed prompts and why: {args.out}.errors.jsonl; run again to try them again", err=True)
    for name in summary.models_with_constant_samples():
        warning = f"all samples of the {name} are letter for letter the same on every prompt: it ignores the temperature"
        say(f"warning: {warning}, so that its entropy says nothing", err=True)
