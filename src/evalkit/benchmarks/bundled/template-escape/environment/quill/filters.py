"""What can stand behind a `|`. Each filter takes the value and, some of them, an argument."""

from .markup import Markup, escape


def upper(value):
    return type(value)(value.upper()) if isinstance(value, str) else str(value).upper()


def default(value, replacement):
    return replacement if value is None or value == "" else value


def truncate(value, length):
    text = str(value)
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def join(value, separator=""):
    return Markup(separator.join(str(item) for item in value))


def linebreaks(value):
    return Markup(str(value).replace("\n", "<br>\n"))


def safe(value):
    return Markup(value)


FILTERS = {
    "upper": upper,
    "default": default,
    "truncate": truncate,
    "join": join,
    "linebreaks": linebreaks,
    "safe": safe,
    "escape": escape,
}
