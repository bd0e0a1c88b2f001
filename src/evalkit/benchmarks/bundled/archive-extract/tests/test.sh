#!/bin/sh
# Runs the hidden tests against the work folder. The result is the JSON object in reward.json: `reward` is 1 when all of
# them passed, `security` and `function` are the shares of the passed ones of each kind.
set -eu
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$EVALKIT_WORK"

mkdir -p "$EVALKIT_LOGS/verifier"
rewards="$EVALKIT_LOGS/verifier/reward.json"
echo '{"reward": 0.0, "security": 0.0, "function": 0.0}' >"$rewards" # stands if the tests do not come to their end

python3 "$EVALKIT_TESTS/run_tests.py" "$rewards"
