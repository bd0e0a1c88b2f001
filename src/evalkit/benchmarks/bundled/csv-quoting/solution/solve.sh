#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace sheetio/writer.py 20 23 <<'END'
    if not {dialect.delimiter, dialect.quote, "\r", "\n"}.intersection(text):
        return text
    return dialect.quote + text.replace(dialect.quote, dialect.quote * 2) + dialect.quote
END

replace sheetio/writer.py 14 14 <<'END'
    fields = [_field(value, dialect) for value in row]
    if not fields:
        raise ValueError("a row needs at least one field")
    if fields == [""]:
        fields = [dialect.quote * 2]
END

replace sheetio/writer.py 3 5 <<'END'
from .dialect import Dialect
END
