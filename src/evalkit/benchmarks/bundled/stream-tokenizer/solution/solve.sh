#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace confstream/decoding.py 12 12 <<'END'
        text = self._decoder.decode(data, final)
END

replace confstream/decoding.py 7 7 <<'END'
    def __init__(self):
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
END

replace confstream/decoding.py 2 2 <<'END'

import codecs

END

replace confstream/reader.py 23 25 <<'END'
        for last in tokenizer.read(chunk):
            yield last
    for last in tokenizer.read(b"", final=True):
END

replace confstream/tokenizer.py 47 69 <<'END'
        return list(self.read(b"", final=True))

    def read(self, data, final=False):
        """The same one by one, so that the tokens before a mistake come before the error."""
        text = self._text + self._decoder.decode(data, final)
        start = 0
        while start < len(text):
            if not self._in_comment and not final and _UNCERTAIN.match(text, start):
                break
            match = (_COMMENT if self._in_comment else _TOKEN).match(text, start)
            if match is None:
                self._fail(text, start)
            kind = match.lastgroup
            if kind not in ("space", "comment"):
                yield Token(kind, _value(match, self._position), self._position.line, self._position.column)
            self._position.advance(match[0])
            start = match.end()
            self._in_comment = kind == "comment" and start == len(text)
        self._text = text[start:]

    def _fail(self, text, start):
        line, column = self._position.line, self._position.column
        if text[start] != '"':
            raise SettingsError(f"unexpected character {text[start]!r}", line, column)
        end = re.compile(_GOOD_STRING).match(text, start).end()
        if text.startswith("\\", end) and not re.compile(_PART_OF_ESCAPE + r"\Z").match(text, end):
            raise SettingsError("bad escape", line, column + end - start)
        raise SettingsError("unfinished string", line, column)
END

replace confstream/tokenizer.py 42 43 <<'END'
        return list(self.read(data))
END

replace confstream/tokenizer.py 38 38 <<'END'
        self._text = ""
        self._in_comment = False
END

replace confstream/tokenizer.py 18 18 <<'END'
    """,
    re.VERBOSE,
)
_COMMENT = re.compile(r"(?P<comment>[^\r\n]*)")

# The beginning of a string, as far as all is well, and the beginning of an escape.
_GOOD_STRING = r'"(?:[^"\\\r\n]|\\["\\nt]|\\u[0-9A-Fa-f]{4})*'
_PART_OF_ESCAPE = r"\\(?:u[0-9A-Fa-f]{0,3})?"

# What reaches the end of the text and could go on, or mean something else, with the characters that are still to come.
_UNCERTAIN = re.compile(
    rf"(?: \r | [A-Za-z_][A-Za-z0-9_-]* | -?[0-9]+(?:\.[0-9]*)? | [-=!<>] | {_GOOD_STRING}(?:{_PART_OF_ESCAPE})? )\Z",
END

replace confstream/tokenizer.py 13 13 <<'END'
      (?P<space>   [ \t]+ | \r\n | \r | \n )
    | (?P<comment> \#[^\r\n]* )
END
