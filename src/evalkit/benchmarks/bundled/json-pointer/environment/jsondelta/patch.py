"""JSON patches: lists of operations."""

from copy import deepcopy

from .equality import same
from .errors import PatchError, PointerError
from .pointer import get, index, split, step


def apply(document, patch):
    """*document* after all operations of *patch*; the argument stays as it is."""
    document = deepcopy(document)
    for operation in patch:
        try:
            change = _OPERATIONS[operation["op"]]
        except KeyError:
            raise PatchError(f"unknown operation: {operation!r}") from None
        document = change(document, operation)
    return document


def _add(document, pointer, value):
    keys = split(pointer)
    if not keys:
        return value
    parent = _parent(document, keys, pointer)
    if isinstance(parent, dict):
        parent[keys[-1]] = value
    elif isinstance(parent, list):
        parent.insert(index(parent, keys[-1], pointer), value)
    else:
        raise PointerError(f"{pointer}: no such element")
    return document


def _remove(document, pointer):
    get(document, pointer)
    keys = split(pointer)
    if not keys:
        return None
    parent = _parent(document, keys, pointer)
    del parent[keys[-1] if isinstance(parent, dict) else index(parent, keys[-1], pointer)]
    return document


def _replace(document, pointer, value):
    get(document, pointer)
    keys = split(pointer)
    if not keys:
        return value
    parent = _parent(document, keys, pointer)
    parent[keys[-1] if isinstance(parent, dict) else index(parent, keys[-1], pointer)] = value
    return document


def _move(document, source, target):
    value = get(document, source)
    if target.startswith(source + "/"):
        raise PatchError(f"{source} cannot be moved into itself")
    return _add(_remove(document, source), target, value)


def _test(document, pointer, value):
    if not same(get(document, pointer), value):
        raise PatchError(f"{pointer} is not {value!r}")
    return document


def _parent(document, keys, pointer):
    for key in keys[:-1]:
        document = step(document, key, pointer)
    return document


_OPERATIONS = {
    "add": lambda document, o: _add(document, o["path"], o["value"]),
    "remove": lambda document, o: _remove(document, o["path"]),
    "replace": lambda document, o: _replace(document, o["path"], o["value"]),
    "move": lambda document, o: _move(document, o["from"], o["path"]),
    "copy": lambda document, o: _add(document, o["path"], deepcopy(get(document, o["from"]))),
    "test": lambda document, o: _test(document, o["path"], o["value"]),
}
