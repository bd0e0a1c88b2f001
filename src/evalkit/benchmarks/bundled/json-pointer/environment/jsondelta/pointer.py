"""JSON pointers: paths into documents."""

from .errors import PointerError


def escape(key):
    """*key* as it is written in a pointer."""
    return key.replace("/", "~1").replace("~", "~0")


def unescape(token):
    """The key that *token* stands for."""
    return token.replace("~0", "~").replace("~1", "/")


def split(pointer):
    """The keys along *pointer*."""
    if not pointer:
        return []
    if not pointer.startswith("/"):
        raise PointerError(f"{pointer}: a pointer starts with /")
    return [unescape(token) for token in pointer[1:].split("/")]


def index(array, key, pointer):
    """The index that *key* means in *array*, which is at most its length."""
    try:
        number = len(array) if key == "-" else int(key)
    except ValueError:
        raise PointerError(f"{pointer}: {key!r} is no index") from None
    if number > len(array):
        raise PointerError(f"{pointer}: no such element")
    return number


def step(value, key, pointer):
    """What *key* leads to from *value*."""
    if isinstance(value, dict) and key in value:
        return value[key]
    if isinstance(value, list):
        number = index(value, key, pointer)
        if number < len(value):
            return value[number]
    raise PointerError(f"{pointer}: no such element")


def get(document, pointer):
    """The value in *document* at *pointer*."""
    value = document
    for key in split(pointer):
        value = step(value, key, pointer)
    return value
