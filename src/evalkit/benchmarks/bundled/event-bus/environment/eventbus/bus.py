"""Sends events to those who have subscribed to them."""

from heapq import merge

from .registry import Registry

ANY = "*"


class ListenerErrors(Exception):
    """Some listeners raised; `errors` has what."""

    def __init__(self, errors, called):
        super().__init__(f"{len(errors)} of {called} listeners failed: {errors[0]!r}")
        self.errors = errors
        self.called = called


class Bus:
    """Events go in by `emit` and come out at listeners."""

    def __init__(self):
        self._registry = Registry()

    def subscribe(self, event, listener, priority=0, once=False):
        """Have *listener* called for each *event*, or for every event if it is ANY."""
        return self._registry.add(event, listener, priority, once)

    def emit(self, event, *args, **kwargs):
        """Tell all who have subscribed to *event*; the number of listeners called."""
        called = 0
        for subscription in self._subscriptions(event):
            subscription.listener(event, *args, **kwargs)
            called += 1
            if subscription.once:
                subscription.cancel()
        return called

    def count(self, event):
        """How many listeners an event would reach."""
        return sum(1 for _ in self._subscriptions(event))

    def _subscriptions(self, event):
        general = self._registry.of(ANY) if event != ANY else []
        return merge(self._registry.of(event), general, key=lambda subscription: subscription.rank)
