"""Self-contained HTML: no external script, no network, readable in light and dark and without colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def counted(n: int, noun: str) -> str:
    """Write a count with its noun, in the plural unless it is 1.

    Examples
    --------
    >>> counted(1, "token"), counted(0, "token")
    ('1 token', '0 tokens')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


# Colours follow the surrounding page (a notebook's theme included): only middle tones are set. The class is named twice
# where JupyterLab's own rules, which align every cell right, would win otherwise.
STYLE = (
    ".confroute{font:13px/1.45 system-ui,sans-serif;color:inherit;max-width:72em;overflow-x:auto}"
    ".confroute table{border-collapse:collapse;margin:.5em 0}"
    ".confroute.confroute :is(td,th){padding:.15em .7em .15em 0;text-align:left;vertical-align:top;"
    "border-bottom:1px solid #8884}"
    ".confroute.confroute td{white-space:nowrap}"
    ".confroute.confroute td.t{white-space:normal;min-width:13em}"
    ".confroute.confroute :is(td,th).n{text-align:right;font-variant-numeric:tabular-nums}"
    ".confroute .q{opacity:.75}"
    ".confroute svg{max-width:100%;height:auto;color:inherit;vertical-align:middle}"
    ".confroute svg .ground{fill:none}"
)
# Characters that stay on one line: an interval, the name of a signal.
_LONG = 24
_PAGE = ":root{color-scheme:light dark}body{margin:2em auto;max-width:76em;padding:0 1em}"


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


def table(head: Sequence[str], rows: Iterable[Sequence[str | float | int | None]]) -> str:
    """Write a table; texts are escaped, numbers are aligned right with three decimals, None is a dash.

    Examples
    --------
    >>> table(["signal", "AUROC"], [["p < q", 0.75]])  # doctest: +ELLIPSIS
    "<table>...<td>p &lt; q</td><td class='n'>0.750</td>...</table>"
    """
    body = list(rows)
    right = [bool(body) and not any(isinstance(row[at], str) for row in body) for at in range(len(head))]
    top = "".join(heading(name, right=number) for name, number in zip(head, right, strict=True))
    cells = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in body)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{cells}</tbody></table>"


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
