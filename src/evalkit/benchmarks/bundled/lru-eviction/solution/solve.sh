#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace thumbs/lru.py 32 33 <<'END'
        self.discard(key)
        weight = self._weigh(value)
        if weight > self.capacity:
            return
        while self.weight + weight > self.capacity:
END

replace thumbs/lru.py 28 28 <<'END'
        if key not in self._entries:
            return default
        self._entries.move_to_end(key)
        return self._entries[key]
END

replace thumbs/service.py 16 18 <<'END'
        if key in self._cache:
            return self._cache.get(key)
        picture = self._render(name, size)
        self._cache.put(key, picture)
        return picture
END
