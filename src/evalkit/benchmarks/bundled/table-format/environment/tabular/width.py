"""How much room a text takes."""


def width(text):
    """The columns that *text* takes in a terminal."""
    return len(text)
