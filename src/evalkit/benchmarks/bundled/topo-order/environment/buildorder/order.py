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


def affected(graph, changed):
    """What must be built again after the names in *changed* have changed, in build order."""
    outdated = []
    for target in build_order(graph):
        if any(name in changed or name in outdated for name in graph.get(target, ())):
            outdated.append(target)
    return outdated
