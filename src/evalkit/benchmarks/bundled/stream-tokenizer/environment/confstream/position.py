"""Where we are in a text."""

import re

_LINE_END = re.compile("\r\n|\r|\n")


class Position:
    """The line and column of the next character."""

    def __init__(self):
        self.line = 1
        self.column = 1

    def advance(self, text):
        """Go on behind *text*."""
        ends = list(_LINE_END.finditer(text))
        if ends:
            self.line += len(ends)
            self.column = 1 + len(text) - ends[-1].end()
        else:
            self.column += len(text)
