"""Small templates for pages and mails."""

from .engine import Environment
from .markup import Markup, escape
from .parser import TemplateError

__all__ = ["Environment", "Markup", "TemplateError", "escape"]
