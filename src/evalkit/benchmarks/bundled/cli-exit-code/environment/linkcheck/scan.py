"""Files and the links in them."""

import os
import re

_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#|/", re.IGNORECASE)


def markdown_files(path):
    """*path* itself if it is a file, else all Markdown files below it, sorted."""
    if os.path.isfile(path):
        return [path]
    found = []
    for folder, _, names in os.walk(path):
        found += [os.path.join(folder, name) for name in names if name.endswith(".md")]
    return sorted(found)


def broken_links(file):
    """(line, target) of each relative link in *file* whose target is not there."""
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            for target in _LINK.findall(line):
                if _ELSEWHERE.match(target):
                    continue
                wanted = os.path.join(os.path.dirname(file), target.partition("#")[0])
                if not os.path.exists(wanted):
                    yield number, target
