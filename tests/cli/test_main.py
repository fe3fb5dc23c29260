"""What holds for every command: numbers, names of arguments, files that cannot be written, readers that leave."""

import argparse
import os
import subprocess
import sys

import pytest

from confroute.cli import _parser, main


@pytest.mark.parametrize("limit", ["0", "-1", "some"])
@pytest.mark.parametrize(
    "command",
    [
        ["record", "p", "--out", "o", "--edge", "local:m"],
        ["label", "p", "--out", "o"],
        ["judge", "grade", "p", "--out", "o", "--judge", "local:m"],
    ],
)
def test_a_limit_is_a_number_of_rows(command, limit, capsys):
    """A negative one would leave out the last rows instead of taking the first."""
    assert main([*command, "--limit", limit]) == 2
    assert "expected a whole number of 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["base-url", "url"])
def test_a_models_server_is_named_alike_everywhere(name, capsys):
    """`--edge-base-url` is known wherever an edge is; the short name too."""
    for command in (["doctor"], ["label", "p", "--out", "o"]):
        assert main([*command, f"--edge-{name}", "http://127.0.0.1:9/v1", "--nonsense"]) == 2
        assert capsys.readouterr().err.rstrip().endswith("unrecognized arguments: --nonsense")


def commands(parser, name="confroute"):
    """Every parser below one, with the name that it is called by."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from commands(child, f"{name} {word}")


# By command: what else it has to be given.
WRITING = {
    "bench replay": ["--data", "d"],
    "fit": ["run", "--cloud-share", "0.3"],
    "judge grade": ["p", "--judge", "local:m"],
    "judge compare": ["a", "b", "--judge", "local:m"],
    "judge sheet": ["p", "--rows", "3"],
    "judge enter": ["p", "s"],
    "label": ["p"],
    "probe": ["run"],
    "record": ["p", "--edge", "local:m"],
    "report": ["run"],
    "serve": ["policy.json", "--edge", "local:m", "--cloud", "local:m"],
    "signals": ["run"],
}
WRITTEN = {"--out", "--plot", "--keep", "--log"}
# These make the folder of their file.
MAKING = {"record", "label"}


def written():
    """What each command writes: its name, the option, and whether that is a folder."""
    for name, parser in commands(_parser()):
        for action in parser._actions:
            if WRITTEN & {*action.option_strings}:
                yield name.removeprefix("confroute "), action.option_strings[0], action.metavar == "FOLDER"


@pytest.mark.parametrize(("name", "option", "folder"), [*written()])
def test_what_cannot_be_written_is_told_before_the_work(name, option, folder, tmp_path, monkeypatch, capsys):
    """In one line, although the files that these commands read do not exist either."""
    (tmp_path / "file").write_text("")

    def told(place):
        # `label` has to be given a file for its labels too.
        more = ["--out", str(tmp_path / "labels")] if option == "--keep" else []
        assert main([*name.split(), *WRITING[name], *more, option, str(tmp_path / place)]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "file is not a folder" in told("file/inside")
    if not folder:
        assert "is a folder: expected a file" in told(".")
        if name not in MAKING:
            assert "none is not a folder: make it first" in told("none/inside")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert f"{tmp_path} cannot be written to" in told("new")


@pytest.mark.parametrize("name", sorted(MAKING))
def test_a_folder_that_is_made_need_not_be_there(name, tmp_path):
    """Nor the folder that it is to lie in."""
    path = tmp_path / "new" / "folder" / "run.jsonl"
    assert _parser().parse_args([name, *WRITING[name], "--out", str(path)]).out == path


def test_a_report_does_not_replace_the_policy(tmp_path, capsys):
    """The report of `fit` stands beside the policy as .html: a policy of that name would be lost."""
    assert main(["fit", "run", "--out", str(tmp_path / "p.html"), "--cloud-share", "0.3"]) == 1
    assert "policy.json" in capsys.readouterr().err


@pytest.mark.parametrize("price", ["cloud=-1,2", "cloud=nan,2", "cloud=1"])
def test_a_report_takes_prices_only(price, capsys):
    """What is no price is wrong usage."""
    assert main(["report", "log", "--price", price]) == 2
    assert "TIER=IN,OUT" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error_message():
    """As in `confroute models | true`: nothing on standard error."""
    code = (
        "import sys; from confroute.cli import main, models\n"
        "models._rows = lambda: [{'name': 'x' * 99, 'kind': 'k', 'size_bytes': 1, 'licence': 'l', 'path': 'p'}] * 9999\n"
        "sys.exit(main(['models']))"
    )
    made = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    made.stdout.close()
    assert made.wait(60) == 141
    assert made.stderr.read() == b""
    made.stderr.close()


def test_every_command_and_argument_says_what_it_is():
    """In `--help`, with the default where there is one."""
    every = dict(commands(_parser()))
    assert len(every) > 15
    for name, parser in every.items():
        assert parser.description, name
        assert parser.format_help()
        for action in parser._actions:
            words = action.help or ""
            assert words or isinstance(action, argparse._SubParsersAction), (name, action.dest)
            if action.option_strings and action.default not in (None, False, argparse.SUPPRESS, [], ()):
                assert "default" in words, (name, action.dest)


ENDINGS = {"-base-url": "base URL of the {0}'s server, if it runs behind one", "-price": "price of the {0}, "}
TIERS = ("edge", "cloud", "judge")


def test_every_option_of_a_model_has_the_same_words_everywhere():
    """Server, price and cache of edge, cloud and judge: one name, one help; older names are known and shown nowhere."""
    seen = {}
    for name, parser in commands(_parser()):
        shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        options = {word: action for action in shown for word in action.option_strings}
        for tier in TIERS:
            model = options.get(f"--{tier}")
            assert (model is not None) == (f"--{tier}-base-url" in options), (name, tier)
            if model is not None:
                assert (model.metavar, "--dtype" in options) == ("MODEL", True), name
                assert model.help.startswith("local:NAME, openai:MODEL"), (name, tier)
        for word, action in options.items():
            for ending, words in ENDINGS.items():
                tier = word.removesuffix(ending).removeprefix("--")
                if word.endswith(ending) and tier not in {"-", "member", "tier"}:
                    assert tier in TIERS, (name, word)
                    assert action.help.startswith(words.format(tier)), (name, word)
                    seen.setdefault((tier, ending), set()).add((action.metavar, action.option_strings[0]))
            # These take prices of tiers by any name, and `bench` keeps embeddings and no replies.
            if word in {"--url", "--base-url", "--price", "--cache"}:
                by_tier = {"report", "watch", "bench replay", "record", "fit", "apply"}
                assert name.removeprefix("confroute ") in by_tier, (name, word)
    assert {(tier, "-base-url") for tier in TIERS} | {(tier, "-price") for tier in TIERS} == seen.keys()
    assert all(len(forms) == 1 for forms in seen.values())


@pytest.mark.parametrize(
    ("command", "older", "name", "value"),
    [
        (["doctor"], "--edge-url", "edge_base_url", "u"),
        (["label", "p", "--out", "o"], "--base-url", "judge_base_url", "u"),
        (["judge", "grade", "p", "--out", "o", "--judge", "j"], "--base-url", "judge_base_url", "u"),
        (["judge", "grade", "p", "--out", "o", "--judge", "j"], "--judge-url", "judge_base_url", "u"),
        (["judge", "grade", "p", "--out", "o", "--judge", "j"], "--price", "judge_price", "1,2"),
        (["judge", "agreement", "p"], "--cache", "judge_cache", "c"),
    ],
)
def test_older_names_of_options_still_work(command, older, name, value):
    """In scripts of before."""
    assert str(getattr(_parser().parse_args([*command, older, value]), name)) == value
