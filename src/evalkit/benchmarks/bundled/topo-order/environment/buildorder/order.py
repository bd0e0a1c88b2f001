"""The order of a build."""


class CycleError(ValueError):
    """Targets that need each other; `cycle` has them in order, the first one again at the end."""

    def __init__(self, cycle):
        super().__init__(" -> ".join(cycle))
        self.cycle = cycle


def build_order(graph, targets=None):
    """The targets and all that they need, dependencies first."""
    order = []

    def visit(target, path):
        if target in path:
            raise CycleError(path + [target])
        for dependency in graph.get(target, ()):
            visit(dependency, path + [target])
        if target not in order:
            order.append(target)

    for target in graph if targets is None else targets:
        visit(target, [])
    return order
