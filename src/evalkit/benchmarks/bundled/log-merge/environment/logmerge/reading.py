"""One log file."""

from typing import NamedTuple


class LogError(ValueError):
    """A line that is no log line."""


class Record(NamedTuple):
    """One entry of a log."""

    time: float
    path: str
    text: str


def open_text(path):
    """How log files are opened unless told otherwise."""
    return open(path, encoding="utf-8", errors="replace")


def records(path, opener=open_text):
    """The records of the file at *path*.

    A record begins with a line such as `1712.5 the message` and goes on with all following lines that are indented.
    """
    file = opener(path)
    time, lines = None, []
    for number, line in enumerate(file, start=1):
        line = line.rstrip("\n")
        if line[:1] in (" ", "\t"):
            if time is None:
                raise LogError(f"{path}:{number}: nothing to continue")
            lines.append(line)
            continue
        if time is not None:
            yield Record(time, path, "\n".join(lines))
        time, text = _header(line, path, number)
        lines = [text]
    if time is not None:
        yield Record(time, path, "\n".join(lines))
    file.close()


def _header(line, path, number):
    stamp, _, text = line.partition(" ")
    try:
        return float(stamp), text
    except ValueError:
        raise LogError(f"{path}:{number}: no time in {line!r}") from None
