"""Graphs of targets."""


def parse(text):
    """A graph from lines such as `app: gui core  # comment`."""
    graph = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        target, colon, dependencies = line.partition(":")
        target = target.strip()
        if not colon or not target or " " in target:
            raise ValueError(f"line {number}: expected `target: dependencies`")
        if target in graph:
            raise ValueError(f"line {number}: {target} is there already")
        graph[target] = tuple(dict.fromkeys(dependencies.split()))
    return graph
