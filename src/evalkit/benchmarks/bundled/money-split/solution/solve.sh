#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace splitbill/shares.py 16 21 <<'END'
    unit = quantum(currency)
    units = abs(int(amount / unit))
    exact = [units * Fraction(weight) / Fraction(total) for weight in weights]
    whole = [int(share) for share in exact]
    by_loss = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for i in by_loss[: units - sum(whole)]:
        whole[i] += 1
    sign = -1 if amount < 0 else 1
    return [sign * share * unit for share in whole]
END

replace splitbill/shares.py 3 5 <<'END'
from fractions import Fraction

from .currency import check, quantum
END
