"""Pieces of HTML that the sections of the page share; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, short: bool = False) -> str:
    """Rows of text under a head; on a narrow screen each row becomes a list of name and value.

    The first cell of a row names it (scope="row"). Roles are written out because a table that CSS lays out
    in another way loses them in some browsers.

    Args:
        caption: what the table holds. short: cells are names and numbers, not broken on a wide screen.
    """
    top = "".join(f"<th role=columnheader scope=col>{escape(h)}</th>" for h in head)
    body = "".join(f"<tr role=row>{_cells(head, row)}</tr>" for row in rows)
    names = ["short"] * short + ["pair"] * (len(head) == 2)
    kind = f' class="{" ".join(names)}"' if names else ""
    return (
        f"<table role=table{kind}><caption>{escape(caption)}</caption>"
        f"<thead role=rowgroup><tr role=row>{top}</tr></thead><tbody role=rowgroup>{body}</tbody></table>"
    )


def _cells(head: Sequence[str], row: Sequence[str]) -> str:
    first, *rest = row
    cells = [f"<th role=rowheader scope=row>{escape(first)}</th>"]
    for name, cell in zip(head[1:], rest, strict=True):
        cells.append(f'<td role=cell data-name="{escape(name, quote=True)}">{escape(cell)}</td>')
    return "".join(cells)


def items(texts: Iterable[str], kind: str) -> str:
    """A list of sentences; empty where there are none."""
    entries = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{entries}</ul>' if entries else ""


def code(text: str) -> str:
    """Lines to copy."""
    return f"<pre><code>{escape(text)}</code></pre>"


def capital(text: str) -> str:
    """With its first letter large."""
    return text[:1].upper() + text[1:]
