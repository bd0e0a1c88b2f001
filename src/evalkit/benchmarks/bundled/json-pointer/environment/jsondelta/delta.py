"""From two documents to a patch."""

from .equality import same
from .pointer import escape


def diff(old, new):
    """The operations that turn *old* into *new*."""
    return list(_diff(old, new, ""))


def _diff(old, new, path):
    if same(old, new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key not in new:
                yield {"op": "remove", "path": f"{path}/{escape(key)}"}
        for key in new:
            if key not in old:
                yield {"op": "add", "path": f"{path}/{escape(key)}", "value": new[key]}
            else:
                yield from _diff(old[key], new[key], f"{path}/{escape(key)}")
    elif isinstance(old, list) and isinstance(new, list):
        for number, (before, after) in enumerate(zip(old, new)):
            yield from _diff(before, after, f"{path}/{number}")
        for number in range(len(new), len(old)):
            yield {"op": "remove", "path": f"{path}/{number}"}
        for number in range(len(old), len(new)):
            yield {"op": "add", "path": f"{path}/{number}", "value": new[number]}
    else:
        yield {"op": "replace", "path": path, "value": new}
