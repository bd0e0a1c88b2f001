#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace jsondelta/delta.py 27 27 <<'END'
        for number in reversed(range(len(new), len(old))):
END

replace jsondelta/equality.py 6 6 <<'END'
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b
END

replace jsondelta/patch.py 76 78 <<'END'
    "add": lambda document, o: _add(document, o["path"], deepcopy(o["value"])),
    "remove": lambda document, o: _remove(document, o["path"]),
    "replace": lambda document, o: _replace(document, o["path"], deepcopy(o["value"])),
END

replace jsondelta/pointer.py 27 30 <<'END'
    if not re.fullmatch("-|0|[1-9][0-9]*", key):
        raise PointerError(f"{pointer}: {key!r} is no index")
    number = len(array) if key == "-" else int(key)
END

replace jsondelta/pointer.py 13 13 <<'END'
    if re.search("~(?![01])", token):
        raise PointerError(f"{token}: ~ must be written ~0")
    return token.replace("~1", "/").replace("~0", "~")
END

replace jsondelta/pointer.py 8 8 <<'END'
    return key.replace("~", "~0").replace("/", "~1")
END

replace jsondelta/pointer.py 2 2 <<'END'

import re

END
