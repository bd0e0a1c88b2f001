"""One semantic version."""

import functools
import re

_NUMBER = "(?:0|[1-9][0-9]*)"
_IDENTIFIER = f"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_PATTERN = re.compile(
    rf"(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.(?P<patch>{_NUMBER})"
    rf"(?:-(?P<prerelease>{_IDENTIFIER}(?:\.{_IDENTIFIER})*))?"
    r"(?:\+(?P<build>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)


@functools.total_ordering
class Version:
    """A version such as `1.10.0-rc.1+build.5`."""

    def __init__(self, text):
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"not a semantic version: {text!r}")
        self.major, self.minor, self.patch = (int(match[part]) for part in ("major", "minor", "patch"))
        self.prerelease = match["prerelease"] or ""
        self.build = match["build"] or ""
        self._text = text

    def __str__(self):
        return self._text

    def __repr__(self):
        return f"Version({self._text!r})"

    def __eq__(self, other):
        if not isinstance(other, Version):
            return NotImplemented
        return self._text == other._text

    def __hash__(self):
        return hash(self._text)

    def __lt__(self, other):
        if not isinstance(other, Version):
            return NotImplemented
        return self._key() < other._key()

    def _key(self):
        return (self.major, self.minor, self.patch, self.prerelease)
