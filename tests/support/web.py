"""A program that fetches pages, for workspaces that may reach a few hosts."""

from __future__ import annotations

HOSTS = ("mirror.example", "127.0.0.1")
"""The hosts that the workspace may reach."""
FETCH = """
import sys, urllib.request, urllib.error
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=20).read().decode())
    except urllib.error.HTTPError as error:
        print(error.code)
    except OSError as error:
        print(type(error).__name__)
"""
"""For Python with `-c`. It prints each page of its arguments, or the status or error in its place."""
