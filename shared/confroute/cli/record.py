"""``confroute record``: run an edge, and further models if given, over a file of prompts; one JSON line per prompt."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

from confroute.cli.options import (
    add_dtype,
    add_model,
    add_price,
    add_tier_prices,
    add_tiers,
    all_prices_of,
    count,
    file_to_make,
    model_of,
    named_models,
    pairs_of,
    tiers_of,
)
from confroute.cli.progress import progress
from confroute.cli.terminal import one_sided, say
from confroute.errors import PolicyError
from confroute.signals.answers import Kind
from confroute.views.html import counted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from confroute.recording.runner import RowRecorder, RunSummary
    from confroute.recording.signals import Build

RATES = (0.01, 0.03, 0.1)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "record",
        help="let models answer a file of prompts and keep all evidence",
        description="Answer each prompt with the edge (and with other tiers and the cloud, if given), draw samples, measure signals, grade "
        "against the reference, and append one JSON line per prompt. Run the same command again to continue after an interruption. The "
        "exit code is 1 if every row ended in an error.",
    )
    parser.add_argument(
        "prompts",
        type=Path,
        metavar="PROMPTS",
        help='JSON lines, each with an "id", a "prompt" (or "messages") and, to be graded, a "reference"',
    )
    parser.add_argument(
        "--out", type=file_to_make, required=True, metavar="FILE", help="the run to write, a .jsonl file"
    )
    parser.add_argument(
        "--pipeline",
        metavar="MODULE:OBJECT",
        help="instead of models: a query engine, a chain or a function of one question that contains a router",
    )
    _add_models(parser)
    parser.add_argument(
        "--kind",
        choices=get_args(Kind),
        default="auto",
        help="as what answers are compared, here and by the fitted policy on new calls (default: as each question asks)",
    )
    parser.add_argument(
        "--grade",
        metavar="MODULE:FUNCTION",
        help="a function grade(question, answer, reference) that returns the quality of an answer, from 0 to 1 (default: compare with the reference)",
    )
    _add_evidence(parser)
    parser.add_argument(
        "--concurrency",
        type=int,
        default=1,
        metavar="N",
        help="prompts answered at the same time (default: %(default)s)",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N prompts")
    parser.add_argument("--retry-errors", action="store_true", help="repeat the rows that ended in an error")
    parser.set_defaults(run=run)


def _add_models(parser: argparse.ArgumentParser) -> None:
    add_model(parser, "edge")
    add_tiers(parser, "which drafts like the edge")
    add_model(parser, "cloud", "without it, the cloud's answers in PROMPTS are kept")
    add_dtype(parser)
    for tier in ("edge", "cloud"):
        add_price(parser, tier, "to record cost_usd")
    add_tier_prices(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message before each prompt")
    parser.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="longest answer (default: %(default)s)"
    )


def _add_evidence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples",
        type=int,
        default=0,
        metavar="N",
        help="additional answers to draw from each model that drafts (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="temperature of the samples (default: %(default)s)"
    )
    parser.add_argument(
        "--signals",
        nargs="*",
        metavar="NAME",
        help="measure and keep only these: columns such as token_logprob.mean, or signals with settings such as 'PTrue()' or "
        "'NAME=SemanticEntropy(equivalence=SameEmbedding())'; `confroute signals --list` lists all (default: every column that needs "
        "no additional model; --signals without a NAME: none)",
    )
    parser.add_argument(
        "--member",
        action="append",
        default=[],
        metavar="NAME=MODEL",
        help="an additional model of an ensemble, with the name that the router will know it by; repeat for more",
    )
    parser.add_argument(
        "--member-base-url",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="base URL of a member's server, if it runs behind one",
    )
    parser.add_argument(
        "--top-logprobs",
        type=int,
        metavar="N",
        help="alternatives per token to request and keep, if the edge has them (default: as many as the signals read)",
    )
    _add_inside(parser)


def _add_inside(parser: argparse.ArgumentParser) -> None:
    """Add the evidence that only a local model's own weights give."""
    parser.add_argument(
        "--dropout",
        type=int,
        default=0,
        metavar="T",
        help="Monte Carlo dropout passes over the draft (default: %(default)s)",
    )
    parser.add_argument(
        "--dropout-rates",
        type=float,
        nargs="+",
        default=RATES,
        metavar="P",
        help="shares of features to drop (default: 0.01 0.03 0.1)",
    )
    parser.add_argument(
        "--hidden",
        type=int,
        nargs="+",
        default=(),
        metavar="LAYER",
        help="keep these layers' hidden states at the end of the prompt, in FILE.hidden/",
    )


def run(args: argparse.Namespace) -> int:
    """Record the prompts that are not recorded yet; exit code 1 if every row ended in an error.

    Raises
    ------
    RecordError
        PROMPTS or the run so far cannot be read.
    PolicyError
        A model or a number that cannot be used, or another process records into FILE.
    """
    from confroute.recording.prompts import read_prompts
    from confroute.recording.runner import record_into

    _check(args)
    prompts = read_prompts(args.prompts)
    with _writable(args.out), ExitStack() as shown:
        summary = record_into(
            args.out,
            prompts,
            lambda: _recorder(args),
            limit=args.limit,
            retry_errors=args.retry_errors,
            concurrency=args.concurrency,
            tick=_shown_on(shown),
        )
    _show(args.out, summary)
    return 1 if summary.todo and summary.failed == summary.todo else 0


def _shown_on(stack: ExitStack) -> Callable[[RunSummary], None]:
    """Show the progress of a run until the stack is closed: how many rows are to be done is known once it begins."""
    ticks: list[Callable[[bool], None]] = []
    failed = 0

    def told(summary: RunSummary) -> None:
        nonlocal failed
        if not ticks:
            ticks.append(stack.enter_context(progress(summary.todo, unit="rows")))
        else:
            ticks[0](summary.failed == failed)
        failed = summary.failed

    return told


def _show(out: Path, summary: RunSummary) -> None:
    again = f": `--retry-errors` does them again. The first: {summary.first_error}" if summary.failed else ""
    say(
        f"{out}: {counted(summary.recorded, 'row')} recorded, {summary.before} there before, {summary.failed} with an error{again}"
    )
    if summary.cut_off:
        say(
            f"{counted(summary.cut_off, 'draft')} cut off at the length limit: a policy sends such calls to the cloud; a longer limit "
            "(--max-tokens, or that of the pipeline's edge) may keep them"
        )
    if summary.private:
        say(
            f"{counted(summary.private, 'row')} private: kept from the cloud, so without its answer, and left out by a fit"
        )
    if summary.several:
        say(
            f"{counted(summary.several, 'question')} took several routed calls, up to {summary.most_calls}. A row compares the answer with "
            "all of them at the edge with the answer with all of them at the cloud; the deployed policy decides each call by itself. So "
            "what a fit promises holds for questions of one call, and is an estimate for these"
        )
    if hint := one_sided(summary.grades, "grades of the edge"):
        say(hint, err=True)


def _check(args: argparse.Namespace) -> None:
    _check_models(args)
    if args.out.suffix == ".gz":
        msg = f"--out {args.out}: expected a plain file, which an interrupted run can continue; compress it when it is complete"
        raise PolicyError(msg)
    minimums = {"samples": 0, "concurrency": 1, "max_tokens": 1, "dropout": 0, "top_logprobs": 0}
    for name, minimum in minimums.items():
        if getattr(args, name) is not None and getattr(args, name) < minimum:
            msg = f"--{name.replace('_', '-')} is {getattr(args, name)}: expected {minimum} or more"
            raise PolicyError(msg)
    if args.samples and not args.temperature > 0:
        msg = f"--temperature is {args.temperature}: expected a number above 0, or all samples are the same"
        raise PolicyError(msg)


def _check_models(args: argparse.Namespace) -> None:
    """Refuse a pipeline beside models, and neither."""
    if args.pipeline is None:
        if args.edge is None:
            msg = "neither --edge nor --pipeline is given: expected a model, or a pipeline around a router"
            raise PolicyError(msg)
        return
    models = ("edge", "tier", "cloud", "member")
    own = (*models, *(f"{name}_base_url" for name in models), "system", "dtype")
    if beside := [f"--{name.replace('_', '-')}" for name in own if getattr(args, name)]:
        msg = (
            f"{', '.join(beside)} beside --pipeline: expected one of them; the router inside the pipeline has its models (an ensemble of "
            "its members is a signal: --signals 'Ensemble(members=(\"NAME\",))')"
        )
        raise PolicyError(msg)


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"{out} cannot be written: {error}; give --out a file that can be written to, on a disk with room; the same command then continues after the rows that are there"
        raise PolicyError(msg) from error


def _recorder(args: argparse.Namespace) -> RowRecorder:
    from confroute.models.resolution import imported
    from confroute.recording.pipeline import PipelineRecorder
    from confroute.recording.runner import Recorder

    edge_price, cloud_price, between = all_prices_of(args)
    wanted: dict[str, Any] = {
        "samples": args.samples,
        "temperature": args.temperature,
        "signals": _signals(args),
        "top_logprobs": args.top_logprobs,
        "hidden": tuple(args.hidden),
        "states": _StateFolder(args.out, args.hidden).keep,
        "kind": args.kind,
        "grade": None if args.grade is None else imported(args.grade, "--grade", "MODULE:FUNCTION"),
        "edge_price": edge_price,
        "cloud_price": cloud_price,
    }
    if args.pipeline is not None:
        return PipelineRecorder(pipeline=imported(args.pipeline, "--pipeline", "MODULE:OBJECT"), **wanted)
    edge, cloud, tiers = model_of(args, "edge"), model_of(args, "cloud"), tiers_of(args)
    members = named_models(args, "--member", args.member, args.member_base_url)
    assert edge is not None, "checked before"
    for model in (edge, *tiers.values(), cloud, *members.values()):
        # A missing model ends the command here, not in the first row.
        if (loaded := getattr(model, "loaded", None)) is not None:
            loaded()
    return Recorder(
        edge=edge,
        tiers=tiers,
        cloud=cloud,
        tier_prices=between,
        members=members,
        system=args.system,
        **wanted,
    )


def _signals(args: argparse.Namespace) -> Mapping[str, Build]:
    from confroute.recording.signals import SIGNALS, builds_of, dropout_builds, ensemble_builds

    return {
        **(SIGNALS if args.signals is None else builds_of(args.signals)),
        **dropout_builds(args.dropout, args.dropout_rates),
        **ensemble_builds([*pairs_of("--member", args.member)]),
    }


class _StateFolder:
    """Keeps hidden states, one safetensors file per prompt, written before the row so that no row lacks its file."""

    def __init__(self, out: Path, layers: Iterable[int]) -> None:
        self._folder, self._layers = out.with_suffix(".hidden"), tuple(layers)

    def keep(self, name: str, states: npt.NDArray[np.float32]) -> str:
        """Write the states of one row and return the file's path, relative to the run's folder."""
        from confroute.tensors import write_arrays

        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{quote(name, safe='')}.safetensors"
        named = {f"layer.{layer}": state for layer, state in zip(self._layers, states, strict=True)}
        write_arrays(path, named, "hidden states")
        return f"{self._folder.name}/{path.name}"
