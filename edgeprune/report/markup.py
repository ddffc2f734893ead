"""Pieces of HTML that the sections of the page share; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, short: bool = False) -> str:
    """Rows of text under a head, in a box that scrolls by itself where the screen is narrow.

    Args:
        short: cells are names and numbers, which are never broken into lines.
    """
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    kind = " class=short" if short else ""
    return f"<div class=scroll><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def capital(text: str) -> str:
    """With its first letter large."""
    return text[:1].upper() + text[1:]
