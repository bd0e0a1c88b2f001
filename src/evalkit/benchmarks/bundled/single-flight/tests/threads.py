"""Threads that tests can steer. No outcome of a correct cache depends on timing."""

import threading


class Patience:
    """How long to wait for what a correct cache does at once.

    When something hung the tests have failed, so there is no point in being as patient with the rest.
    """

    seconds = 4

    @classmethod
    def lost(cls, message):
        cls.seconds = 0.1
        return AssertionError(message)


class Background:
    """Runs a function in a thread; `result()` is what it returned or raised."""

    def __init__(self, function, *args):
        self._function, self._args = function, args
        self._value = self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._value = self._function(*self._args)
        except BaseException as error:
            self._error = error

    def result(self):
        self._thread.join(Patience.seconds)
        if self._thread.is_alive():
            raise Patience.lost("a thread hangs")
        if self._error is not None:
            raise self._error
        return self._value


class Gate:
    """A load that begins, waits to be let go, and then returns or raises what it was given."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.calls = []
        self._begun, self._go = threading.Event(), threading.Event()

    def __call__(self, *args):
        self.calls.append(args)
        self._begun.set()
        if not self._go.wait(Patience.seconds):
            raise Patience.lost("was never let go")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def wait_until_begun(self):
        if not self._begun.wait(Patience.seconds):
            raise Patience.lost("the load did not begin")

    def let_go(self):
        self._go.set()


class Key:
    """A key that tells when another thread has begun to look it up."""

    def __init__(self, name, threads):
        self.name = name
        self._missing = threads
        self._seen = set()
        self._all = threading.Event()

    def __hash__(self):
        self._seen.add(threading.get_ident())
        if len(self._seen) >= self._missing:
            self._all.set()
        return hash(self.name)

    def __eq__(self, other):
        return self is other

    def wait_for_all(self):
        if not self._all.wait(Patience.seconds):
            raise Patience.lost("some threads never asked")
