"""Makes texts fit."""

ELLIPSIS = "\u2026"


def clip(text, columns):
    """*text*, cut off if it takes more than so many columns."""
    _check(columns)
    if len(text) <= columns:
        return text
    return text[: columns - 1] + ELLIPSIS


def pad(text, columns, align="<"):
    """*text* with spaces up to so many columns."""
    return f"{text:{align}{columns}}"


def wrap(text, columns):
    """The words of *text* in lines of at most so many columns."""
    _check(columns)
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) <= columns:
            line += " " + word
            continue
        if line:
            lines.append(line)
        while len(word) > columns:
            lines.append(word[:columns])
            word = word[columns:]
        line = word
    lines.append(line)
    return lines


def _check(columns):
    if columns < 2:
        raise ValueError("at least 2 columns are needed")
