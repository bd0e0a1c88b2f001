"""Text that is markup already."""


class Markup(str):
    """A text that needs no escaping."""

    def __add__(self, other):
        return Markup(str(self) + str(other))

    def __html__(self):
        return self


def escape(value):
    """*value* as markup."""
    if isinstance(value, Markup):
        return value
    text = str(value)
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return Markup(text)
