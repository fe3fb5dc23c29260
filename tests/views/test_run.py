"""The page of a recorded run: what comes first, what is said of each row, what stays out, and how it is used without and with scripts."""

import json
import re
import subprocess
from shutil import which

import pytest

from confroute import Cascade, KeepPrivate, SendTo, TokenLogprob
from confroute.cli import main
from confroute.policy import save_policy
from confroute.recording import Row, Side, write_rows
from confroute.views.run import KINDS, run_page, run_rows

POLICY = Cascade.of(TokenLogprob(), 0.5)


def row(name, edge=1.0, cloud=1.0, doubt=0.1, **more):
    """A row whose draft has this doubt in nats per token; grades of None are missing."""
    fields = {"prompt": f"question of {name}", **more}
    return Row(
        id=name,
        edge=Side(text=f"edge of {name}", logprobs=(-doubt,) * 4, quality=edge),
        cloud=Side(text=f"cloud of {name}", quality=cloud),
        **fields,
    )


ROWS = [
    row("fine"),
    row("sent", 0.0, 1.0, 2.0),
    row("lost", 0.0, 1.0),
    row("surely-lost", 0.0, 1.0, 0.01),
    row("slightly-lost", 0.9, 1.0),
    row("both", 0.0, 0.0),
    row("needless", 1.0, 1.0, 2.0),
    row("ungraded", None, None),
    row("half-graded", 0.4, None),
    row("cloud-ungraded", 1.0, None),
    Row(id="down", prompt="?", edge=Side(error="busy"), cloud=Side(error="down")),
]


def test_rows_to_look_at_come_first():
    """Kept answers that lost most, the most certain of them first; then the other kinds."""
    found = run_rows(ROWS, POLICY)
    assert [(one.row.id, one.kind, one.right) for one in found] == [
        ("surely-lost", "kept, worse", "cloud"),
        ("lost", "kept, worse", "cloud"),
        ("slightly-lost", "kept, worse", "cloud"),
        ("both", "kept, both wrong", "edge"),
        ("needless", "sent, no better", "edge"),
        ("down", "failed", None),
        ("sent", "sent, better", "cloud"),
        ("fine", "kept, as good", "edge"),
        ("cloud-ungraded", "kept, as good", "edge"),
        ("ungraded", "not graded", None),
        ("half-graded", "not graded", None),
    ]


def test_without_a_policy_the_grades_alone_sort():
    found = run_rows(ROWS[:6])
    assert [one.kind for one in found] == [*["cloud better"] * 4, "both wrong", "edge enough"]
    assert "decided" not in run_page(ROWS[:6])


def test_the_page_holds_what_was_asked_answered_and_decided(read):
    """Each row with both answers, grades, uncertainty and the reason; well formed, and nothing loaded from elsewhere."""
    reader = read(run_page(ROWS, POLICY))
    words = " ".join(reader.words)
    assert not reader.open
    assert not reader.loaded
    for name in ("lost", "sent", "fine"):
        assert all(f"{part} of {name}" in words for part in ("question", "edge", "cloud"))
    assert "token logprob 0.1 nats &lt;= 0.5" in run_page(ROWS, POLICY)
    assert "<noscript" not in run_page(ROWS, POLICY)


SECRET = "XSECRETX"
PRIVATE = {
    "pattern-in-question": (
        row("a", prompt=f"my salary {SECRET}"),
        Cascade.of(TokenLogprob(), 0.5, rules=(KeepPrivate(patterns=("salary",)),)),
    ),
    "tag-without-policy": (row("a", prompt=SECRET, extra={"tags": ["private"]}), None),
    "tag-with-a-policy-without-rules": (row("a", prompt=SECRET, extra={"tags": ["Never_Cloud"]}), POLICY),
    "pattern-in-answer": (
        Row(id="a", prompt="who?", edge=Side(text=f"salary {SECRET}", logprobs=(-0.1,), quality=1.0)),
        Cascade.of(TokenLogprob(), 0.5, rules=(KeepPrivate(patterns=("salary",)),)),
    ),
    "pattern-in-reference": (
        row("a", reference=f"salary {SECRET}"),
        Cascade.of(TokenLogprob(), 0.5, rules=(KeepPrivate(patterns=("salary",)),)),
    ),
    "a-label-that-is-neither": (row("a", prompt=SECRET, extra={"tags": ["private=perhaps"]}), None),
    "context": (
        row("a", extra={"context": {"question": "q", "passages": [f"salary {SECRET}"]}}, prompt=SECRET),
        Cascade.of(TokenLogprob(), 0.5, rules=(KeepPrivate(patterns=("salary",)),)),
    ),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_private_rows_have_no_text_in_the_page(name):
    """Only id, grades and decision; other rows keep theirs."""
    hidden, policy = PRIVATE[name]
    written = run_page([hidden, row("open")], policy)
    assert SECRET not in written
    assert "salary" not in written
    assert "edge of a" not in written
    assert written.count(">private</td>") == 4
    assert "question of open" in written


def test_a_rule_that_is_not_private_masks_nothing():
    policy = Cascade.of(TokenLogprob(), 0.5, rules=(SendTo(tier="cloud", patterns=("question",)),))
    assert "question of a" in run_page([row("a")], policy)


HOSTILE = [
    "</td></tr></table><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x00\x07",
    "\u202eevil\u2066",
    "'\" onmouseover='alert(1)",
    "\ud800",
    "</details><style>*{display:none}</style>" * 20,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(text, read):
    """In every field that a run's writer chooses: no tag, no attribute, no turned line, no control character."""
    side = Side(text=text, logprobs=(-0.1,), quality=1.0, model=text)
    hostile = Row(id=text, dataset=text, prompt=text, reference=text, edge=side, cloud=Side(error=text))
    written = run_page([hostile], POLICY)
    clean = run_page([row("a")], POLICY)
    assert written.count("<script") == clean.count("<script") == 1
    assert "<img" not in written
    assert "onmouseover='" not in written.replace("&#x27;", "")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", written)
    assert not read(written).open
    written.encode("utf-8")


def test_two_thousand_long_rows_stay_usable():
    """Long texts are folded, so that a page of them is no longer than its rows."""
    rows = [row(f"r{at}", float(at % 3 > 0), 1.0, (at % 10) / 10, prompt="word " * 400) for at in range(2000)]
    written = run_page(rows, POLICY)
    assert written.count("<tr data-kinds") == 2000
    assert written.count("<details>") >= 2000
    assert len(written) < 12_000_000


def page_of(tmp_path, rows, policy=None):
    path = tmp_path / "run.jsonl"
    write_rows(path, rows)
    more = []
    if policy is not None:
        save_policy(policy, tmp_path / "policy.json")
        more = ["--policy", str(tmp_path / "policy.json")]
    assert main(["report", str(path), *more]) == 0
    return (tmp_path / "run.jsonl.html").read_text(encoding="utf-8")


def test_the_command_tells_a_run_from_a_log(tmp_path, capsys):
    """By what is in the file; packed or not."""
    assert "kept, worse" in page_of(tmp_path, ROWS, POLICY)
    assert "11 rows" in capsys.readouterr().err
    write_rows(tmp_path / "packed.gz", ROWS)
    assert main(["report", str(tmp_path / "packed.gz"), "--out", str(tmp_path / "p.html")]) == 0
    assert "11 recorded questions" in (tmp_path / "p.html").read_text(encoding="utf-8")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"name": 1}) + "\n")
    assert main(["report", str(other)]) == 1
    assert "neither a decision" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run.jsonl"), "--price", "cloud=1,2"]) == 1
    assert "has its own costs" in capsys.readouterr().err


def test_every_kind_is_reachable():
    """Each name is one that a row may have."""
    kinds = {one.kind for one in [*run_rows(ROWS, POLICY), *run_rows(ROWS)]}
    assert kinds == {*KINDS}


@pytest.mark.slow
@pytest.mark.skipif(which("chromium") is None, reason="needs chromium")
def test_filters_and_sorting_in_a_browser(tmp_path):
    """Pressing a head sorts; ticking a kind hides the others; what is shown is counted."""
    page = page_of(tmp_path, ROWS, POLICY)
    acts = """<script>
const shown=()=>[...document.querySelectorAll('tbody tr')].filter(r=>!r.hidden).map(r=>r.cells[r.cells.length-2].textContent);
const say=(name)=>{const p=document.createElement('pre');p.textContent=name+'='+shown().join(',');document.body.append(p)};
say('first');
[...document.querySelectorAll('th button')].find(b=>b.textContent==='uncertainty').click();say('sorted');
document.querySelector("input[value='kept,-both-wrong']").click();say('ticked');
document.querySelector("input[value='kept,-both-wrong']").click();
const find=document.querySelector('input[type=search]');find.value='QUESTION of sent';find.dispatchEvent(new Event('input',{bubbles:true}));say('found');
</script></body>"""
    path = tmp_path / "acted.html"
    path.write_text(page.replace("</body>", acts), encoding="utf-8")
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        f"--user-data-dir={tmp_path}/profile",
        path.as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    said = dict(found.split("=", 1) for found in re.findall(r"<pre>([^<]*)</pre>", dom))
    assert said["first"].startswith("surely-lost,lost,")
    assert said["sorted"].startswith("surely-lost,")
    assert said["sorted"].endswith(",down")
    assert said["ticked"] == "both"
    assert said["found"] == "sent"
