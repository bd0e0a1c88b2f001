#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace formula/parser.py 49 49 <<'END'
        return self.power()

    def power(self):
        base = self.percentage()
        return Binary("^", base, self.signed()) if self.accept("^") else base
END

replace formula/parser.py 31 43 <<'END'
        return self.from_the_left(self.product, "+", "-")

    def product(self):
        return self.from_the_left(self.signed, "*", "/")

    def from_the_left(self, operand, *operators):
        left = operand()
        operator = self.accept(*operators)
        while operator:
            left = Binary(operator.kind, left, operand())
            operator = self.accept(*operators)
END

replace formula/show.py 37 39 <<'END'
        return level, f"{_text(tree.left, _PERCENTAGE)}^{_text(tree.right, _SIGNED)}"
    left = _SUM if level == _COMPARISON else level
    return level, f"{_text(tree.left, left)} {tree.operator} {_text(tree.right, level + 1)}"
END

replace formula/show.py 7 7 <<'END'
_COMPARISON, _SUM, _PRODUCT, _SIGNED, _POWER, _PERCENTAGE, _ATOM = range(7)
END
