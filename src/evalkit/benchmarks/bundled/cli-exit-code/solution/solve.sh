#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace bin/linkcheck 11 11 <<'END'
sys.exit(main())
END

chmod 755 bin/linkcheck

cat >linkcheck/__main__.py <<'END'
import sys

from .cli import main

sys.exit(main())
END

replace linkcheck/cli.py 32 32 <<'END'
    return parser


def _natural(text):
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {text}")
    return number
END

replace linkcheck/cli.py 29 29 <<'END'
        "--max-broken", type=_natural, default=0, metavar="N", help="accept up to N broken links (default: 0)"
END

replace linkcheck/cli.py 12 20 <<'END'
    unchecked = False
    for path in options.paths:
        if not os.path.exists(path):
            unchecked = True
            print(f"linkcheck: {path}: no such file or folder", file=sys.stderr)
            continue
        for file in markdown_files(path):
            files += 1
            try:
                for line, target in broken_links(file):
                    broken += 1
                    print(f"{file}:{line}: {target}")
            except (OSError, UnicodeDecodeError) as error:
                unchecked = True
                print(f"linkcheck: {file}: {error}", file=sys.stderr)
    if not options.quiet:
        print(f"{_count(broken, 'broken link')} in {_count(files, 'file')}", file=sys.stderr)
    if unchecked:
        return 2
    return 1 if broken > options.max_broken else 0
END

replace linkcheck/cli.py 3 3 <<'END'
import argparse
import os
END
