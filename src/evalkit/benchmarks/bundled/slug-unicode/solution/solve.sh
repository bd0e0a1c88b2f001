#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace permalink/archive.py 23 23 <<'END'
        self._slug_of[key] = slug
END

replace permalink/archive.py 15 16 <<'END'
        key = unicodedata.normalize("NFC", title)
        if key in self._slug_of:
            return self._slug_of[key]
END

replace permalink/archive.py 2 2 <<'END'

import unicodedata

END

replace permalink/slug.py 12 15 <<'END'
    for apostrophe in APOSTROPHES:
        title = title.replace(apostrophe, "")
    decomposed = unicodedata.normalize("NFKD", title).lower()
    letters = (letter for letter in decomposed if not unicodedata.category(letter).startswith("M"))
    text = "".join(LETTERS.get(letter, letter) for letter in letters)
END

replace permalink/slug.py 3 3 <<'END'
import re
import unicodedata
END
