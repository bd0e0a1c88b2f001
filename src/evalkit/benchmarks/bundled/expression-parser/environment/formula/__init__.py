"""Formulas of a spreadsheet."""

from .errors import FormulaError
from .evaluate import calculate, evaluate
from .parser import parse
from .show import show

__all__ = ["FormulaError", "calculate", "evaluate", "parse", "show"]
