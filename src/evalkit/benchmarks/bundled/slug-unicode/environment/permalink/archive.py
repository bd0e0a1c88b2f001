"""All articles by slug."""

from .slug import slugify


class Archive:
    """Gives each title a slug of its own."""

    def __init__(self):
        self._title_of = {}
        self._slug_of = {}

    def add(self, title):
        """The slug of *title*, which is a new one if the title is."""
        if title in self._slug_of:
            return self._slug_of[title]
        base = slug = slugify(title)
        number = 1
        while slug in self._title_of:
            number += 1
            slug = f"{base}-{number}"
        self._title_of[slug] = title
        self._slug_of[title] = slug
        return slug

    def find(self, slug):
        """The title behind *slug*, or None."""
        return self._title_of.get(slug)
