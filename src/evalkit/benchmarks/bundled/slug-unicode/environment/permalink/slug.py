"""From a headline to a slug."""

import re

from .table import APOSTROPHES, LETTERS

UNTITLED = "untitled"


def slugify(title, max_length=80):
    """The words of *title* in ASCII lower case, joined by dashes."""
    text = title.lower()
    for apostrophe in APOSTROPHES:
        text = text.replace(apostrophe, "")
    text = "".join(LETTERS.get(letter, letter) for letter in text)
    slug = re.sub(r"[^a-z0-9]+", "-", text).strip("-")
    return slug[:max_length].rstrip("-") or UNTITLED
