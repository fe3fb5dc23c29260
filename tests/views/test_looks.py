"""How every page looks, checked without a browser: nothing overprints or is cut off, ticks are round, words and lines can be seen."""

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.bench.report import compared, recovery_svg
from confroute.fitting import CloudShare, MaxLoss, fit
from confroute.views.fit import front_svg, report_html
from confroute.views.html import _PAGE, STYLE
from confroute.views.scales import Span, ranking, timeline, zones
from confroute.views.svg import CODES, COLOURS, GREY, Line, Panel, code_of, document, spread, ticks

LETTER, HEIGHT = 0.56 * 12, 12


def boxes(svg):
    """The words of a drawing with the rectangles that they take, and the drawing's size."""
    root = ElementTree.fromstring(svg)
    _, _, wide, high = map(float, root.get("viewBox").split())
    found = []
    for one in root.iter("{http://www.w3.org/2000/svg}text"):
        words, x, y = one.text or "", float(one.get("x")), float(one.get("y"))
        length = LETTER * len(words) * (1.06 if one.get("font-weight") else 1)
        left = x - length * {"start": 0, "middle": 0.5, "end": 1}[one.get("text-anchor", "start")]
        found.append((words, (left, y - HEIGHT + 2, left + length, y + 2)))
    return found, (wide, high)


def check_layout(svg):
    """No two words overlap, and none leaves the drawing."""
    found, (wide, high) = boxes(svg)
    for words, (left, top, right, bottom) in found:
        assert left >= -1, words
        assert top >= -1, words
        assert right <= wide + 1, words
        assert bottom <= high + 1, words
    for (words, a), (others, b) in combinations(found, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (words, others)


def drawings(html):
    """The SVG documents of a page; signs and bars hold no words."""
    return [svg for svg in re.findall(r"<svg xmlns.*?</svg>", html, re.DOTALL) if "<text" in svg]


def test_no_words_of_any_page_overlap_or_are_cut_off(shown, decision, rows):
    """Every drawing of every view."""
    pages = {name: thing._repr_html_() for name, thing in shown.items()}
    pages["decision"] = decision._repr_html_()
    pages["fit"] = report_html(fit(rows, MaxLoss(alpha=0.25)))
    count = 0
    for html in pages.values():
        for svg in drawings(html):
            check_layout(svg)
            count += 1
    assert count >= len(pages)


def test_the_check_sees_words_that_overlap_or_leave_the_drawing():
    """The check itself can fail."""
    for parts in (
        ["<text x='9' y='20'>one</text>", "<text x='20' y='22'>two</text>"],
        ["<text x='90' y='20'>cut off</text>"],
    ):
        with pytest.raises(AssertionError):
            check_layout(document(100, 40, parts))


def test_names_of_points_never_overprint(front):
    """At the knee, beside it, at both ends."""
    at = front.points.index(front.knee)
    for chosen in (front.points[0], *front.points[at - 2 : at + 3], front.points[-1]):
        drawn = front_svg(front, chosen=chosen)
        check_layout(drawn)
        assert {"edge", "cloud", "knee", "chosen"} <= {words for words, _ in boxes(drawn)[0]}


steps = st.just(0.0) | st.floats(1e-3, 50)
numbers = st.floats(0, 50, allow_nan=False) | st.just(float("inf"))


@given(st.tuples(numbers, numbers).map(sorted), numbers, st.floats(0, 1))
def test_zones_never_overprint(ends, value, share):
    """Wherever limits, value and threshold lie, far apart or on one another."""
    low, high = ends
    alone = low + share * (high - low) if high < float("inf") else None
    check_layout(zones(low, high, value=value, alone=alone, words="zones"))
    check_layout(zones(low, high, words="zones"))


@given(
    st.lists(
        st.tuples(
            st.text("abc-", min_size=1, max_size=30),
            st.floats(0, 100),
            st.floats(0, 50),
            st.integers(0, 99999),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_timelines_and_rankings_never_overprint(rows):
    """Long names, steps of no time at all, many tokens."""
    spans = [
        Span(
            words=name,
            outcome="edge",
            start_s=start,
            seconds=long,
            tokens=(tokens, 1),
            failed=tokens % 2 == 0,
        )
        for name, start, long, tokens in rows
    ]
    check_layout(timeline(spans))
    check_layout(
        ranking(
            "APGR",
            [(name, value, (value - 1, value + 1)) for name, value, *_ in rows],
            main=rows[0][0],
            chance=0.5,
        )
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15), st.floats(1e-6, 1e6))
def test_names_beside_lines_never_overprint_and_ticks_fit(ends, high):
    """However close the lines end, and whatever the scale is."""
    panel = Panel(80, 46, 340, high=high, across=(0.0, high), width=500)
    lines = [Line(words=f"line {at}", points=[(0.0, 0.0), (high, end * high)]) for at, end in enumerate(ends)]
    check_layout(document(760, 440, [*panel.axes("title", "x", "y"), *panel.lines(lines)]))


@given(st.floats(-100, 100), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_round(times, span, most):
    """Whole multiples of 1, 2 or 5 times a power of ten, no more than asked for, within the range."""
    low, high = times * span, (times + 1) * span
    found = ticks(low, high, most=most)
    assert len(found) <= most + 1
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in found)
    for step in np.diff(found)[:1]:
        mantissa = float(f"{step:.3e}".split("e")[0])
        assert round(mantissa, 2) in {1, 2, 5, 10}
        assert np.allclose(np.diff(found), step, rtol=1e-5)


@given(st.lists(st.floats(0, 100), max_size=7))
def test_spread_keeps_the_order_the_gap_and_the_room(wanted):
    """Up to what has room."""
    placed = spread(wanted, gap=16, low=0, high=100)
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    found = [placed[at] for at in order]
    assert all(b - a >= 16 - 1e-9 for a, b in pairwise(found))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in found)


def rgb(colour):
    """Red, green and blue from 0 to 1."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    return np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)]) / 255


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """WCAG 2's contrast ratio of two colours."""
    light, dark = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def over(ink, ground, opacity):
    """A colour laid over another."""
    return opacity * ink + (1 - opacity) * ground


def themes():
    """Ink and ground of the light and of the dark page."""
    found = re.findall(r"[{;]color:(#\w+);background:(#\w+)", _PAGE)
    return [(rgb(ink), rgb(ground)) for ink, ground in found[:2]]


def test_words_and_lines_can_be_seen_in_both_themes():
    """At least 4.5 to 1 for words, the pale ones and those on zones and tiles included, and 3 to 1 for lines and shapes."""
    assert len(themes()) == 2
    pale = [float(share) for share in re.findall(r"small\){opacity:([\d.]+)", STYLE)]
    quiet = min([0.75, *pale])
    for ink, ground in themes():
        grounds = [ground, over(rgb("#888888"), ground, 0x22 / 255)]
        grounds += [
            over(rgb(colour), ground, 0.3) for colour in (CODES["edge"].colour, CODES["cloud"].colour, GREY)
        ]
        for behind in grounds[:2]:
            assert contrast(over(ink, behind, quiet), behind) >= 4.5
        for behind in grounds:
            assert contrast(ink, behind) >= 4.5
        for colour in (*(code.colour for code in CODES.values()), *COLOURS[1:], GREY):
            assert contrast(rgb(colour), ground) >= 3, colour


def test_outcomes_are_told_apart_without_colour_and_by_colour_blind_readers():
    """Each has a shape and a dash of its own; red- and green-blind readers see five colours (Machado and others 2009)."""
    assert (
        len({code.shape for code in CODES.values()})
        == len({code.dash for code in CODES.values()})
        == len(CODES)
    )
    # Grey is what the caller ended, and told by its shape alone.
    coloured = {word: rgb(code.colour) for word, code in CODES.items() if code.colour != code_of("").colour}
    assert len(coloured) == 5
    blind = {
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "all": np.eye(3).tolist(),
    }
    for name, matrix in blind.items():
        seen = {word: np.clip(np.array(matrix) @ linear(colour), 0, 1) for word, colour in coloured.items()}
        for (a, one), (b, other) in combinations(seen.items(), 2):
            assert np.linalg.norm(one ** (1 / 2.4) - other ** (1 / 2.4)) > 0.12, (name, a, b)


def test_the_oracle_is_not_drawn_as_random_routing_is(front, rows):
    """Another dash, and each is named beside its line."""
    replayed = [
        compared(at, name, [(0, 0), (1, 1)], kind=name) for at, name in enumerate(("random", "oracle"))
    ]
    pages = [
        front_svg(front),
        report_html(fit(rows, CloudShare(share=0.3))),
        recovery_svg("mmlu", "share of cloud calls", replayed),
    ]
    for page in pages:
        named = dict(re.findall(r"stroke-dasharray='([^']*)'/>\n<text [^>]*>(oracle|random)[^<]*<", page))
        assert sorted(named.values()) == ["oracle", "random"]
