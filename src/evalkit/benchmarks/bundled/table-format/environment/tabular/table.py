"""Rows and columns."""

from itertools import zip_longest

from .fit import clip, pad, wrap


def table(headers, rows, align="", limit=None):
    """A table of *rows* below *headers*, with cells of at most *limit* columns."""
    if limit is not None:
        headers = [clip(header, limit) for header in headers]
    aligns = align.ljust(len(headers), "<")
    cells = [[wrap(cell, limit) if limit is not None else [cell] for cell in row] for row in rows]
    columns = [
        max([len(header)] + [len(line) for row in cells for line in row[number]])
        for number, header in enumerate(headers)
    ]
    lines = [_line(headers, columns, aligns), "-+-".join("-" * column for column in columns)]
    for row in cells:
        lines += [_line(parts, columns, aligns) for parts in zip_longest(*row, fillvalue="")]
    return "\n".join(lines)


def _line(parts, columns, aligns):
    padded = [pad(part, column, align) for part, column, align in zip(parts, columns, aligns)]
    return " | ".join(padded).rstrip()
