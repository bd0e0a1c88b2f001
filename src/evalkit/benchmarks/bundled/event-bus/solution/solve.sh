#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace eventbus/bus.py 32 36 <<'END'
        errors = []
        for subscription in list(self._subscriptions(event)):
            if not subscription.active:
                continue
            if subscription.once:
                subscription.cancel()
            called += 1
            try:
                subscription.listener(event, *args, **kwargs)
            except Exception as error:
                errors.append(error)
        if errors:
            raise ListenerErrors(errors, called)
END

replace eventbus/registry.py 23 30 <<'END'
        if self.knows(subscription):
            subscriptions = self._by_event[subscription.event]
            subscriptions.remove(subscription)
            if not subscriptions:
                del self._by_event[subscription.event]

    def knows(self, subscription):
        return subscription in self._by_event.get(subscription.event, [])
END
