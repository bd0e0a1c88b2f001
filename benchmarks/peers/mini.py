"""mini-swe-agent's batch runner over instances that only take time: mini.py INSTANCES SECONDS MEGABYTES WORKERS"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MSWEA_COST_TRACKING": "ignore_errors",
    "MSWEA_GLOBAL_CONFIG_DIR": "config",
    "MSWEA_CONFIGURED": "true",
    "MSWEA_SILENT_STARTUP": "1",
    "HF_HOME": "hub",
}

INSTANCES, WORKERS = int(sys.argv[1]), int(sys.argv[4])
SECONDS, MEGABYTES = float(sys.argv[2]), float(sys.argv[3])
STEPS = 20 if MEGABYTES else 1
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"

from minisweagent.environments.local import LocalEnvironment  # noqa: E402  # reads the environment when imported
from minisweagent.models.test_models import DeterministicModel, make_output  # noqa: E402
from minisweagent.run.benchmarks import swebench  # noqa: E402


class Sleeping(LocalEnvironment):
    """An environment in which commands only take time."""

    def execute(self, action: dict[str, Any], cwd: str = "", *, timeout: int | None = None) -> dict[str, Any]:
        time.sleep(SECONDS / STEPS)
        output = {"output": action["command"], "returncode": 0, "exception_info": ""}
        self._check_finished(output)
        return output


class Talking(DeterministicModel):
    """A model that says as much as is wanted, and then submits."""

    def query(self, messages: list[dict[str, Any]], **kwargs: object) -> Any:
        self.current_index += 1
        last = self.current_index == STEPS - 1
        content = "x" * int(MEGABYTES * 1e6 / STEPS)
        return make_output(content, [{"command": f"{SUBMIT}\npatch" if last else "next"}], cost=0.0)


def main() -> None:
    data = Path("data")
    data.mkdir()
    rows = ({"instance_id": f"sleep-{number:06}", "problem_statement": "sleep"} for number in range(INSTANCES))
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    swebench.main(
        subset="data", split="train", slice_spec="", filter_spec="", shuffle=False, output="out", workers=WORKERS,
        model="sleeper", model_class="__main__.Talking", redo_existing=False,
        config_spec=[str(swebench.DEFAULT_CONFIG_FILE), "agent.step_limit=0", "agent.cost_limit=0", "model.outputs=[]"],
        environment_class="__main__.Sleeping",
    )  # fmt: skip
    submitted = json.loads(Path("out/preds.json").read_text())
    if sum(row["model_patch"] == "patch" for row in submitted.values()) != INSTANCES:
        sys.exit(f"not all instances came to a result: {len(submitted)}")


if __name__ == "__main__":
    main()
