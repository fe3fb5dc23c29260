"""Self-contained HTML: no external script, no network, readable in light and dark, on a narrow screen, printed, and without colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from confroute.views.svg import sign


def counted(n: int, noun: str) -> str:
    """Write a count with its noun, in the plural unless it is 1.

    Examples
    --------
    >>> counted(1, "token"), counted(0, "token")
    ('1 token', '0 tokens')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


# Colours follow the surrounding page (a notebook's theme included): grounds and lines are thin layers of its ink. The class is
# named twice where JupyterLab's own rules, which align every cell right, would win otherwise.
STYLE = (
    ".confroute{font:14px/1.5 system-ui,sans-serif;color:inherit}"
    ".confroute :is(h1,h2){line-height:1.2;font-weight:650;letter-spacing:-.01em}"
    ".confroute h1{font-size:1.7em;margin:0 0 .6em}.confroute h2{font-size:1.2em;margin:2em 0 .5em}"
    ".confroute p{margin:.5em 0;max-width:48em}"
    ".confroute :is(.q,small){opacity:.78}"
    ".confroute .wide{overflow-x:auto;margin:.6em 0}"
    ".confroute .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5em,1fr));gap:.7em;margin:.8em 0}"
    ".confroute .tile{border:1px solid #8885;border-radius:.6em;padding:.7em .9em;background:#8881;break-inside:avoid}"
    ".confroute .tile>*{display:block}.confroute .tile b{font-size:1.75em;line-height:1.25;font-weight:650;"
    "font-variant-numeric:tabular-nums;overflow-wrap:anywhere}"
    ".confroute table{border-collapse:collapse;font-size:.93em}"
    ".confroute.confroute :is(td,th){padding:.3em 1em .3em 0;text-align:left;vertical-align:top;border-bottom:1px solid #8884}"
    ".confroute.confroute th{font-weight:600;white-space:nowrap;vertical-align:bottom}"
    ".confroute.confroute td{white-space:nowrap}"
    ".confroute.confroute td.t{white-space:normal;min-width:13em}"
    ".confroute.confroute :is(td,th).n{text-align:right;font-variant-numeric:tabular-nums}"
    ".confroute tr.main td{font-weight:650;background:#8882}"
    ".confroute svg{max-width:100%;height:auto;color:inherit;vertical-align:middle}"
    ".confroute svg:is(.sign,.bar){max-width:none}.confroute .sign{margin-right:.35em;vertical-align:-.05em}"
    ".confroute svg .ground{fill:none}"
    ".confroute .as{white-space:nowrap}"
    "@media(max-width:34em){.confroute .stack thead{display:none}.confroute.confroute .stack td{display:block;border:0;"
    "padding:.1em 0;text-align:left}}"
    ".confroute details{margin:.25em 0}.confroute summary{cursor:pointer;padding:.2em 0}"
    ".confroute details[open]>summary{font-weight:600}"
    ".confroute .sift{display:flex;flex-wrap:wrap;gap:.4em 1.2em;align-items:center;margin:.6em 0}"
    ".confroute .sift input[type=search]{font:inherit;padding:.25em .6em;min-width:14em}"
    ".confroute th button{all:unset;cursor:pointer;text-decoration:underline dotted}"
    ".confroute th[aria-sort=ascending] button::after{content:' \\25b2'}.confroute th[aria-sort=descending] button::after{content:' \\25bc'}"
    ".confroute th button:focus-visible{outline:2px solid}"
    ".confroute [hidden]{display:none}"
    "@media print{.confroute{font-size:12px}.confroute .sift{display:none}.confroute :is(svg,tr,.tile){break-inside:avoid}"
    ".confroute h2{break-after:avoid}.confroute *{print-color-adjust:exact}.confroute .wide{overflow:visible}}"
)
_MAIN = " class='main'"
# Characters that stay on one line: an interval, the name of a signal.
_LONG = 24
_PAGE = (
    ":root{color-scheme:light dark}body{margin:2.5em auto;max-width:62rem;padding:0 1.2rem;color:#1f2328;background:#fff}"
    "@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#15181c}}"
    "@media print{body{margin:0;color:#000;background:#fff}}"
)


def fragment(parts: Iterable[str], *, label: str) -> str:
    """Wrap HTML with its own style, for a notebook or a page.

    Parameters
    ----------
    parts : iterable of str
        HTML, in which all foreign text is escaped.
    label : str
        Its title for screen readers.

    Examples
    --------
    >>> fragment(["<p>kept</p>"], label="decision").endswith("<p>kept</p></div>")
    True
    """
    body = "".join(parts)
    return f"<div class='confroute' role='region' aria-label='{escape(label, quote=True)}'><style>{STYLE}</style>{body}</div>"


def page(title: str, parts: Iterable[str]) -> str:
    """Write a complete document; see `fragment`.

    Examples
    --------
    >>> page("Report", ["<p>1 < 2</p>"]).startswith("<!doctype html>")
    True
    """
    heading = escape(title)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>{heading}</title><style>{_PAGE}</style></head>"
        f"<body>{fragment([f'<h1>{heading}</h1>', *parts], label=title)}</body></html>\n"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number that matters: its name, the number in words, and what it is to be held against, such as its interval.

    `outcome` is drawn before the number in its code, where the number is about one (see `confroute.views.svg.CODES`).
    """

    name: str
    value: str
    beside: Sequence[str] = ()
    outcome: str = ""


def tiles(shown: Iterable[Tile]) -> str:
    """Write numbers large, side by side.

    Examples
    --------
    >>> tiles([Tile(name="quality", value="0.84", beside=["always edge 0.60"])])
    "<div class='tiles'><div class='tile'><span>quality</span><b>0.84</b><small>always edge 0.60</small></div></div>"
    """
    return f"<div class='tiles'>{''.join(map(_tile, shown))}</div>"


def _tile(tile: Tile) -> str:
    beside = "".join(f"<small>{escape(words)}</small>" for words in tile.beside)
    drawn = sign(tile.outcome) if tile.outcome else ""
    return (
        f"<div class='tile'><span>{escape(tile.name)}</span><b>{drawn}{escape(tile.value)}</b>{beside}</div>"
    )


def coded(outcome: str, *, words: str = "") -> str:
    """Write an outcome with its shape, in words of its own or by its name.

    Examples
    --------
    >>> coded("edge").endswith("edge</span>")
    True
    """
    return f"<span class='as'>{sign(outcome)}{escape(words or outcome)}</span>"


def wide(drawn: str) -> str:
    """Wrap what a narrow page scrolls sideways: a drawing or a table."""
    return f"<div class='wide'>{drawn}</div>"


def folded(summary: str, parts: Iterable[str]) -> str:
    """Fold parts behind a line of words.

    Examples
    --------
    >>> folded("all < 3", ["<p>1</p>"])
    '<details><summary>all &lt; 3</summary><p>1</p></details>'
    """
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str | float | int | None]], *, main: str | None = None
) -> str:
    """Write a table; texts are escaped, numbers are aligned right with three decimals, None is a dash.

    The row whose first cell is `main` stands out.

    Examples
    --------
    >>> table(["signal", "AUROC"], [["p < q", 0.75]])  # doctest: +ELLIPSIS
    "<div class='wide'><table>...<td>p &lt; q</td><td class='n'>0.750</td>...</table></div>"
    """
    body = list(rows)
    right = [bool(body) and not any(isinstance(row[at], str) for row in body) for at in range(len(head))]
    top = "".join(heading(name, right=number) for name, number in zip(head, right, strict=True))
    cells = "".join(
        f"<tr{_MAIN if main is not None and row[0] == main else ''}>{''.join(map(_cell, row))}</tr>"
        for row in body
    )
    return wide(f"<table><thead><tr>{top}</tr></thead><tbody>{cells}</tbody></table>")


def heading(name: str, *, right: bool = False) -> str:
    """Write the head of a column; aligned right over numbers.

    Examples
    --------
    >>> heading("n", right=True)
    "<th scope='col' class='n'>n</th>"
    """
    side = " class='n'" if right else ""
    return f"<th scope='col'{side}>{escape(name)}</th>"


def text(words: str) -> str:
    """Write a cell of words, which wrap where they are long.

    Examples
    --------
    >>> text("0.857 to 0.906")
    '<td>0.857 to 0.906</td>'
    """
    folded = " class='t'" if len(words) > _LONG else ""
    return f"<td{folded}>{escape(words)}</td>"


def _cell(value: str | float | None) -> str:
    if value is None:
        return "<td class='n'>-</td>"
    if isinstance(value, str):
        return text(value)
    shown = f"{value:.3f}" if isinstance(value, float) else str(value)
    return f"<td class='n'>{shown}</td>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """A row of `sifted`: its cells as HTML, and the kinds that it can be filtered by."""

    cells: Sequence[str]
    kinds: Sequence[str]


# Sorts by the head that is pressed, numbers as numbers, and hides what is not ticked or does not hold the words sought.
_SIFT = """(box=>{
const body=box.querySelector('tbody'),rows=[...body.rows],sift=box.querySelector('.sift'),told=box.querySelector('output'),
find=sift.querySelector('[type=search]'),ticks=[...sift.querySelectorAll('[type=checkbox]')];
const show=()=>{const on=ticks.filter(t=>t.checked).map(t=>t.value),words=find.value.toLowerCase();let n=0;
for(const row of rows){const kinds=row.dataset.kinds.split(' ');
row.hidden=on.length>0&&!on.some(k=>kinds.includes(k))||!row.textContent.toLowerCase().includes(words);n+=!row.hidden}
told.textContent=n+' of '+rows.length+' shown'};
sift.hidden=false;sift.addEventListener('input',show);show();
const heads=[...box.querySelectorAll('th')],key=(row,at)=>row.cells[at].dataset.key??row.cells[at].textContent;
heads.forEach((head,at)=>{const press=document.createElement('button');press.append(...head.childNodes);head.append(press);
press.onclick=()=>{const way=head.ariaSort==='ascending'?-1:1;heads.forEach(h=>h.removeAttribute('aria-sort'));
head.ariaSort=way>0?'ascending':'descending';
rows.sort((r,s)=>{const a=key(r,at),b=key(s,at),d=a-b;return way*(isNaN(d)?a.localeCompare(b):d)});body.append(...rows)}})
})(document.currentScript.parentNode)"""


def sifted(head: Sequence[str], rows: Sequence[Sifted]) -> str:
    """Write a table that can be filtered by kind and by words and sorted by any column; without scripts it is a plain table.

    Parameters
    ----------
    head : sequence of str
    rows : sequence of Sifted
        Cells are whole `td` elements, in which all foreign text is escaped; a `data-key` sorts in place of the cell's words.

    Examples
    --------
    >>> sifted(["route"], [Sifted(cells=["<td>edge</td>"], kinds=["edge"])]).count("type='checkbox'")
    1
    """
    kinds = dict.fromkeys(kind for row in rows for kind in row.kinds)
    boxes = "".join(
        f"<label><input type='checkbox' value='{_word(kind)}'> {coded(kind)}</label>" for kind in kinds
    )
    top = "".join(map(heading, head))
    body = "".join(
        f"<tr data-kinds='{' '.join(map(_word, row.kinds))}'>{''.join(row.cells)}</tr>" for row in rows
    )
    whole = wide(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")
    find = "<input type='search' placeholder='words in a row' aria-label='words in a row'>"
    sift = f"<div class='sift' hidden>{find}{boxes}<output class='q'></output></div>"
    return f"<div class='sifted'>{sift}{whole}<script>{_SIFT}</script></div>"


def _word(kind: str) -> str:
    """A kind as one word of an attribute."""
    return escape("-".join(kind.split()), quote=True)
