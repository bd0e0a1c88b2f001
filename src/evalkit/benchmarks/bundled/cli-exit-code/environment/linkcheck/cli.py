"""The command line."""

import argparse
import sys

from .scan import broken_links, markdown_files


def main(argv=None):
    options = _parser().parse_args(argv)
    broken = files = 0
    for path in options.paths:
        for file in markdown_files(path):
            files += 1
            for line, target in broken_links(file):
                broken += 1
                print(f"{file}:{line}: {target}")
    if not options.quiet:
        print(f"{_count(broken, 'broken link')} in {_count(files, 'file')}")
    return broken if broken > options.max_broken else 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="linkcheck", description="Find relative links in Markdown files that lead nowhere."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a Markdown file, or a folder to search for *.md")
    parser.add_argument(
        "--max-broken", type=int, default=0, metavar="N", help="accept up to N broken links (default: 0)"
    )
    parser.add_argument("--quiet", action="store_true", help="no summary")
    return parser


def _count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


if __name__ == "__main__":
    sys.exit(main())
