"""From rows to CSV."""

from .dialect import Dialect

_SPECIAL = {",", '"', "\n"}


def dumps(rows, dialect=Dialect()):
    """The rows as one text."""
    return "".join(_line(row, dialect) for row in rows)


def _line(row, dialect):
    fields = [_field(value, dialect) for value in row]
    return dialect.delimiter.join(fields) + dialect.terminator


def _field(value, dialect):
    text = "" if value is None else str(value)
    if not _SPECIAL.intersection(text):
        return text
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'
