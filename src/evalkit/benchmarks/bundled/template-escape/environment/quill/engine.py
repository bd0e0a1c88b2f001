"""Finds, parses and renders templates."""

from .parser import parse


class Context:
    """What is known while a template is being rendered."""

    def __init__(self, environment, values, escaping):
        self.environment = environment
        self.values = values
        self.escaping = escaping

    def with_value(self, name, value):
        """The same with one more variable."""
        return Context(self.environment, {**self.values, name: value}, self.escaping)

    def include(self, name):
        """The text of another template."""
        return self.environment.render_in(name, self.values, self.escaping)


class Environment:
    """Renders templates, whose sources come from *load(name)*."""

    def __init__(self, load):
        self._load = load
        self._parsed = {}

    def render(self, name, **values):
        """The text of a template."""
        return self.render_in(name, values, escaping=True)

    def render_in(self, name, values, escaping):
        """The text of a template within another one."""
        if name.endswith((".html", ".txt")):
            escaping = name.endswith(".html")
        if name not in self._parsed:
            self._parsed[name] = parse(self._load(name), escaping)
        output = []
        context = Context(self, values, escaping)
        for node in self._parsed[name]:
            node.write(context, output)
        return "".join(output)
