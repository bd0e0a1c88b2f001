"""Who listens to what."""


class Subscription:
    """The interest of one listener in one event."""

    def __init__(self, registry, event, listener, priority, once, number):
        self._registry = registry
        self.event = event
        self.listener = listener
        self.once = once
        self.rank = (-priority, number)  # the lowest is called first

    @property
    def active(self):
        """Whether the listener still gets events."""
        return self._registry.knows(self)

    def cancel(self):
        """End this subscription."""
        self._registry.remove(self)
