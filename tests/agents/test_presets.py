from __future__ import annotations

import subprocess

import pytest

from evalkit.agents.presets import Preset, find_preset, read_presets
from evalkit.errors import ConfigError


@pytest.mark.parametrize("name", ["mini-swe-agent", "openhands", "claude-code", "codex", "aider"])
def test_presets_are_whole_and_their_commands_are_shell(name: str) -> None:
    preset = find_preset(name)
    assert preset.install
    _, _, script = preset.wrap(preset.argv)
    subprocess.run(["sh", "-n", "-c", script], check=True)


def test_what_the_workspace_knows_is_expanded_and_nothing_else() -> None:
    environment = {"A": "$X/v1", "B": 'say "`id`" \\'}
    preset = Preset(environment=environment)
    argv = preset.wrap(["printf", "%s|", "$A", "$B", 'c "$X"', '$(printf "%s" "$X $X")'])
    done = subprocess.run(argv, env={"X": "1 `2`", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert done.stdout == '1 `2`/v1|say "`id`" \\|c "1 `2`"|1 `2` 1 `2`|'


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(ConfigError) as error:
        find_preset("mini-swe")
    assert "mini-swe-agent" in error.value.hint
    assert set(read_presets()) >= {"aider"}
