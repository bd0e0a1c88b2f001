"""The subscriptions of a bus."""

from itertools import count

from .subscription import Subscription


class Registry:
    """Subscriptions by event, in the order in which they are called."""

    def __init__(self):
        self._by_event = {}
        self._numbers = count()

    def add(self, event, listener, priority, once):
        subscription = Subscription(self, event, listener, priority, once, next(self._numbers))
        subscriptions = self._by_event.setdefault(event, [])
        subscriptions.append(subscription)
        subscriptions.sort(key=lambda other: other.rank)
        return subscription

    def remove(self, subscription):
        subscriptions = self._by_event.get(subscription.event, [])
        for other in subscriptions:
            if other.listener == subscription.listener:
                subscriptions.remove(other)
                break

    def knows(self, subscription):
        return any(other.listener == subscription.listener for other in self._by_event.get(subscription.event, []))

    def of(self, event):
        return self._by_event.get(event, [])
