"""A load that is under way."""

import threading


class LoadError(Exception):
    """The thread that was loading has been stopped."""


class Flight:
    """One thread loads, others wait for what it brings."""

    def __init__(self):
        self._landed = threading.Event()
        self._value = None
        self._error = None

    def land(self, value):
        """Bring a value to those who wait."""
        self._value = value
        self._landed.set()

    def crash(self, error):
        """Tell those who wait that there will be no value."""
        self._error = error
        self._landed.set()

    def wait(self):
        """What the load brings."""
        self._landed.wait()
        if self._error is None:
            return self._value
        if isinstance(self._error, Exception):
            raise self._error
        raise LoadError("the load was stopped") from self._error
