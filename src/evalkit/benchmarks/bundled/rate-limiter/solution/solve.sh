#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace throttle/bucket.py 37 42 <<'END'
        if cost <= self.level:
            return 0.0
        return (cost - self._tokens) / self.rate + self._behind()

    def _behind(self):
        """How far the clock is behind the latest time that it ever showed."""
        return max(0.0, self._updated - self._clock())

    def _refill(self):
        now = max(self._clock(), self._updated)
        self._tokens = min(self.burst, self._tokens + (now - self._updated) * self.rate)
END

replace throttle/limiter.py 48 49 <<'END'
            buckets.append(self._buckets[key])
        return buckets
END

replace throttle/limiter.py 40 40 <<'END'
        """The buckets that an operation of an account takes from."""
        buckets = []
END

replace throttle/limiter.py 33 37 <<'END'
        full = [key for key, bucket in self._buckets.items() if bucket.level >= bucket.burst]
        for key in full:
            del self._buckets[key]
        return len(full)
END

replace throttle/limiter.py 29 29 <<'END'
        wait = max((bucket.wait(cost) for bucket in self._concerned(account, operation)), default=0.0)
        return wait and wait + self._clock() - self._given_clock()
END

replace throttle/limiter.py 25 25 <<'END'
        buckets = self._concerned(account, operation)
        if any(bucket.wait(cost) for bucket in buckets):
            return False
        return all(bucket.take(cost) for bucket in buckets)
END

replace throttle/limiter.py 16 18 <<'END'
        self._latest = clock()
        self._buckets = {}
        self._given_clock = clock

    def _clock(self):
        """The latest time ever shown, so that a new bucket does not earn what an old one would not."""
        self._latest = max(self._latest, self._given_clock())
        return self._latest
END

replace throttle/limiter.py 7 8 <<'END'
ANY = "*"
END
