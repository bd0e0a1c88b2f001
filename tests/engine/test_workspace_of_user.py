"""A workspace whose commands run as one user, whatever the user of the workspace is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from evalkit.domain.protocols import Exit, WorkspaceSpec
from evalkit.engine.workspace_of_user import WorkspaceOfUser
from evalkit.testing import FakeWorkspace
from tests.support.workspaces import make_job


class RecordsUsers(FakeWorkspace):
    """Keeps the user of each command."""

    users: list[str | None]

    async def exec(self, *arguments: Any, user: str | None = None, **options: Any) -> Exit:
        self.users.append(user)
        return await super().exec(*arguments, **options)


def test_commands_run_as_the_user_unless_they_name_another(tmp_path: Path) -> None:
    inner = RecordsUsers(WorkspaceSpec(make_job(tmp_path), "solve"), tmp_path / "root")
    inner.users = []
    workspace = WorkspaceOfUser(inner, "worker")

    async def work() -> None:
        await workspace.exec(("true",))
        await workspace.exec(("true",), user="root")
        await workspace.exec(("true",), user="")

    anyio.run(work)
    assert inner.users == ["worker", "root", ""]


def test_files_are_those_of_the_workspace(tmp_path: Path) -> None:
    inner = FakeWorkspace(WorkspaceSpec(make_job(tmp_path), "solve"), tmp_path / "root")
    workspace = WorkspaceOfUser(inner, "worker")

    async def work() -> None:
        await workspace.write(b"said", workspace.places.work / "file")
        await workspace.read(inner.places.work / "file", tmp_path / "copy")

    anyio.run(work)
    assert (tmp_path / "copy").read_bytes() == b"said"
