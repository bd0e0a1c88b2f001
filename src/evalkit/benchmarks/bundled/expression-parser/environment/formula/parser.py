"""From tokens to a tree, by the grammar in the README."""

from .errors import FormulaError
from .lexer import tokens
from .tree import Binary, Call, Name, Negative, Number, Percent

COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")


def parse(text):
    """The tree of a formula."""
    parser = _Parser(text)
    tree = parser.formula()
    parser.expect("end")
    return tree


class _Parser:
    """One method for each rule of the grammar."""

    def __init__(self, text):
        self._tokens = tokens(text)
        self._next = 0

    def formula(self):
        left = self.sum()
        operator = self.accept(*COMPARISONS)
        return Binary(operator.kind, left, self.sum()) if operator else left

    def sum(self):
        left = self.product()
        operator = self.accept("+", "-")
        return Binary(operator.kind, left, self.sum()) if operator else left

    def product(self):
        left = self.power()
        operator = self.accept("*", "/")
        return Binary(operator.kind, left, self.product()) if operator else left

    def power(self):
        left = self.signed()
        while self.accept("^"):
            left = Binary("^", left, self.signed())
        return left

    def signed(self):
        if self.accept("-"):
            return Negative(self.signed())
        return self.percentage()

    def percentage(self):
        operand = self.atom()
        while self.accept("%"):
            operand = Percent(operand)
        return operand

    def atom(self):
        number = self.accept("number")
        if number:
            return Number(float(number.text))
        name = self.accept("name")
        if name:
            return Call(name.text, self.arguments()) if self.accept("(") else Name(name.text)
        self.expect("(")
        tree = self.formula()
        self.expect(")")
        return tree

    def arguments(self):
        if self.accept(")"):
            return ()
        found = [self.formula()]
        while self.accept(","):
            found.append(self.formula())
        self.expect(")")
        return tuple(found)

    def accept(self, *kinds):
        """The next token if it is of one of these kinds."""
        token = self._tokens[self._next]
        if token.kind not in kinds:
            return None
        self._next += 1
        return token

    def expect(self, kind):
        if not self.accept(kind):
            token = self._tokens[self._next]
            raise FormulaError(f"unexpected {token.text!r}" if token.text else "unexpected end", token.position)
