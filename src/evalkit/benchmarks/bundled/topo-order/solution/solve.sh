#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace buildorder/order.py 15 25 <<'END'
    done = set()
    path = []  # the targets being visited, the outermost first
    open_ = {}  # the same targets, each with an iterator over the dependencies still to visit

    def enter(target):
        path.append(target)
        open_[target] = iter(graph.get(target, ()))

    for target in graph if targets is None else targets:
        if target not in done:
            enter(target)
        while path:
            current = path[-1]
            for dependency in open_[current]:
                if dependency in open_:
                    raise CycleError(path[path.index(dependency) :] + [dependency])
                if dependency not in done:
                    enter(dependency)
                    break
            else:
                del open_[path.pop()]
                done.add(current)
                order.append(current)
END
