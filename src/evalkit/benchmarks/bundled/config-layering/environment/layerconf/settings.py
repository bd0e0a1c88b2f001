"""The settings of one worker."""

from .defaults import DEFAULTS
from .tree import assign, lookup, overlay


class Settings:
    """Defaults with any number of layers over them, and single values set on top of it all."""

    def __init__(self, layers=[], overrides={}):
        self._layers = layers
        self._overrides = overrides
        self._refresh()

    def add_layer(self, layer):
        """Lay a dictionary over what is there."""
        self._layers.append(layer)
        self._refresh()

    def set(self, path, value):
        """Set one value; it wins over all layers."""
        self._overrides[path] = value
        assign(self._values, path, value)

    def get(self, path, default=None):
        """The value at a dotted path such as `database.pool.size`."""
        try:
            return lookup(self._values, path)
        except KeyError:
            return default

    def as_dict(self):
        """Everything, as a nested dictionary."""
        return self._values

    def copy(self):
        """Another object that starts out with the same settings."""
        return Settings(self._layers, self._overrides)

    def _refresh(self):
        values = DEFAULTS
        for layer in self._layers:
            values = overlay(values, layer)
        for path, value in self._overrides.items():
            assign(values, path, value)
        self._values = values
