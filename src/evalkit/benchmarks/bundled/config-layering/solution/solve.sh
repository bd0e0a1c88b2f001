#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace layerconf/settings.py 41 45 <<'END'
        values = deepcopy(DEFAULTS)
        for layer in self._layers:
            values = overlay(values, deepcopy(layer))
        for path, value in self._overrides.items():
            assign(values, path, deepcopy(value))
END

replace layerconf/settings.py 34 34 <<'END'
        return deepcopy(self._values)
END

replace layerconf/settings.py 28 28 <<'END'
            return deepcopy(lookup(self._values, path))
END

replace layerconf/settings.py 22 23 <<'END'
        self._overrides[path] = deepcopy(value)
        self._refresh()
END

replace layerconf/settings.py 17 17 <<'END'
        self._layers.append(deepcopy(layer))
END

replace layerconf/settings.py 10 12 <<'END'
    def __init__(self, layers=(), overrides=None):
        self._layers = deepcopy(list(layers))
        self._overrides = deepcopy(overrides or {})
END

replace layerconf/settings.py 2 2 <<'END'

from copy import deepcopy

END
