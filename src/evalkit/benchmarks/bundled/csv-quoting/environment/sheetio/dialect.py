"""How a file is laid out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """The characters with a meaning of their own."""

    delimiter: str = ","
    quote: str = '"'
    terminator: str = "\r\n"

    def __post_init__(self):
        if len(self.delimiter) != 1 or len(self.quote) != 1 or self.delimiter == self.quote:
            raise ValueError("delimiter and quote must be two different characters")
        if self.terminator not in ("\r\n", "\n", "\r"):
            raise ValueError(f"not a line terminator: {self.terminator!r}")
