"""State machines from tables."""

from typing import Any, Callable, NamedTuple, Optional

ANY = "*"


class InvalidEvent(Exception):
    """The event is not possible now."""


class Transition(NamedTuple):
    """One line of a table: what *event* does in the state *source*."""

    event: str
    source: str
    target: str
    guard: Optional[Callable[..., bool]] = None
    action: Optional[Callable[..., Any]] = None


class Machine:
    """Moves objects with a `state` and a `history` from state to state."""

    def __init__(self, initial, transitions, on_enter=None, final=()):
        self.initial = initial
        self.final = frozenset(final)
        self._table = {(t.event, t.source): t for t in transitions}
        self._on_enter = dict(on_enter or {})

    def send(self, subject, event, data):
        """Let *event* happen to *subject*."""
        source = subject.state
        transition = self._find(subject, event, data)
        if transition.action is not None:
            transition.action(subject, **data)
        hook = self._on_enter.get(transition.target)
        if hook is not None:
            hook(subject)
        subject.state = transition.target
        subject.history.append((event, source, transition.target))

    def _find(self, subject, event, data):
        for source in (subject.state, ANY):
            transition = self._table.get((event, source))
            if transition and (transition.guard is None or transition.guard(subject, **data)):
                return transition
        raise InvalidEvent(f"cannot {event} an order that is {subject.state}")
