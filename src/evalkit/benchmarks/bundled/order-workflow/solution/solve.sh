#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace orderflow/machine.py 44 46 <<'END'
        for transition in self._table:
            if transition.event != event or transition.source not in (subject.state, ANY):
                continue
            if subject.state not in self.final and (transition.guard is None or transition.guard(subject, **data)):
END

replace orderflow/machine.py 32 32 <<'END'
        """Let *event* happen to *subject*, now or as soon as it has finished what it is doing."""
        subject.waiting.append((event, data))
        if len(subject.waiting) > 1:
            return  # sent from an action or a hook: the call below us handles it
        try:
            while subject.waiting:
                self._step(subject, *subject.waiting[0])
                subject.waiting.popleft()
        finally:
            subject.waiting.clear()

    def _step(self, subject, event, data):
END

replace orderflow/machine.py 28 28 <<'END'
        self._table = list(transitions)
END

replace orderflow/order.py 14 14 <<'END'
        self.history = []
        self.waiting = deque()  # events, the first of which is being handled
END

replace orderflow/order.py 2 2 <<'END'

from collections import deque

END
