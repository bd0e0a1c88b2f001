"""From bytes to characters."""


class Decoder:
    """Decodes UTF-8 that comes in pieces, without the byte order mark at its beginning."""

    def __init__(self):
        self._begun = False

    def decode(self, data, final=False):
        """The characters of the next bytes."""
        text = data.decode("utf-8", errors="replace")
        if not self._begun and text:
            self._begun = True
            text = text[1:] if text.startswith("\ufeff") else text
        return text
