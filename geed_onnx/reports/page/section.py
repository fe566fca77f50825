"""One section of the page, as text that our own renderers made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    id : str
        What links point at: ASCII letters, digits and hyphens, once on the page.
    title : str
        Plain text; escaped where it is shown.
    html : str
        Trusted HTML: every name in it was escaped by whoever made it.
    """

    id: str
    title: str
    html: str
