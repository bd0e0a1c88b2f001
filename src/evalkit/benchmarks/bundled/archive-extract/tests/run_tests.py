"""Runs the hidden tests beside this file and writes the rewards, as JSON, to the file in the first argument."""

import json
import os
import sys
import unittest

KINDS = ("security", "function")


def share_of_passed(module):
    """The share of the tests in *module* that ran and passed; 0 if it cannot be loaded."""
    suite = unittest.defaultTestLoader.discover(os.path.dirname(os.path.abspath(__file__)), pattern=f"{module}.py")
    expected = suite.countTestCases()
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = {test.id() for test, _ in result.failures + result.errors + result.skipped}
    return max(0, result.testsRun - len(bad)) / max(1, expected)


rewards = {kind: share_of_passed(f"test_{kind}") for kind in KINDS}
rewards["reward"] = 1.0 if all(share == 1 for share in rewards.values()) else 0.0
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(rewards, file)
