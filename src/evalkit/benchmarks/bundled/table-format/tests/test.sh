#!/bin/sh
# Runs the hidden tests against the work folder. The result is the share of those that passed, in reward.txt.
set -eu
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$EVALKIT_WORK"

mkdir -p "$EVALKIT_LOGS/verifier"
reward="$EVALKIT_LOGS/verifier/reward.txt"
echo 0 >"$reward" # stands if the tests do not come to their end

python3 "$EVALKIT_TESTS/run_tests.py" "$reward"
