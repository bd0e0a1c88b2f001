"""Nested dictionaries as trees with dotted paths."""


def overlay(base, top):
    """*base* with the values of *top* laid over it; dictionaries are merged key by key."""
    merged = dict(base)
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = overlay(merged[key], value)
        else:
            merged[key] = value
    return merged


def lookup(tree, path):
    """The value at a dotted *path*; KeyError with the whole path when there is none."""
    node = tree
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            raise KeyError(path)
        node = node[key]
    return node


def assign(tree, path, value):
    """Put *value* at a dotted *path*, making the dictionaries on the way."""
    *parents, last = path.split(".")
    for key in parents:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[last] = value
