#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace freshcache/cache.py 81 81 <<'END'
        with self._lock:
            self._flights.clear()
END

replace freshcache/cache.py 76 77 <<'END'
            for key in [key for key in {**self._entries, **self._flights} if predicate(key)]:
                self._flights.pop(key, None)
                self._entries.pop(key, None)
END

replace freshcache/cache.py 70 70 <<'END'
        with self._lock:
            self._flights.pop(key, None)
END

replace freshcache/cache.py 65 65 <<'END'
        with self._lock:
            self._flights.pop(key, None)
END

replace freshcache/cache.py 50 61 <<'END'
        found, own, others = {}, {}, {}
        with self._lock:
            now = self._clock()
            for key in keys:
                entry = self._entries.get(key)
                if entry is not None and now < entry.good_until:
                    found[key] = entry.value
                elif key in self._flights:
                    others[key] = self._flights[key]
                else:
                    own[key] = self._flights[key] = Flight()
        if own:
            found.update(self._load(own, load_many))
        for key, flight in others.items():
            found[key] = flight.wait()
        return {key: found[key] for key in keys}

    def _load(self, own, load_many):
        """The values of the keys of *own*, brought to all who wait for its flights."""
        try:
            loaded = load_many(list(own))
            values = {key: loaded[key] for key in own}
        except BaseException as error:
            self._end(own)
            for flight in own.values():
                flight.crash(error)
            raise
        self._end(own, values)
        for key, flight in own.items():
            flight.land(values[key])
        return values

    def _end(self, own, values=None):
        """Take the flights of *own* off the list, and keep what they brought.

        Those that are not on the list any more are out of date, and their values with them.
        """
        with self._lock:
            good_until = self._clock() + self._ttl
            for key, flight in own.items():
                if self._flights.get(key) is flight:
                    del self._flights[key]
                    if values is not None:
                        self._entries[key] = Entry(values[key], good_until)
END

replace freshcache/cache.py 29 45 <<'END'
        return self.get_many([key], lambda keys: {key: load()})[key]
END

replace freshcache/prices.py 28 29 <<'END'
        self._store.write(name, price)
        self._cache.invalidate(name)
END
