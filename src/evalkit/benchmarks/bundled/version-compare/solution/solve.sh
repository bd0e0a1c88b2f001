#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace relver/choose.py 11 11 <<'END'
        if version.prerelease and not allow_prerelease:
            continue
        if best is None or version > best:
END

replace relver/version.py 48 48 <<'END'
        identifiers = self.prerelease.split(".") if self.prerelease else []
        ranks = tuple((0, int(i), "") if i.isdigit() else (1, 0, i) for i in identifiers)
        return (self.major, self.minor, self.patch, not identifiers, ranks)
END

replace relver/version.py 37 40 <<'END'
        return self._key() == other._key()

    def __hash__(self):
        return hash(self._key())
END
