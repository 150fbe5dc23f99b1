"""What an agent leaves behind on its machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.remote.agent import remove_scratch

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_that_a_worker_still_writes_in_keeps_its_lock_and_is_removed_by_the_next_agent(
    tmp_path: Path,
) -> None:
    scratch = tmp_path / "runner-agent-x"
    (scratch / "run/handoff").mkdir(parents=True)
    (scratch / ".lock").touch()
    (scratch / "late").touch()
    remove_scratch(scratch)
    assert {path.name for path in scratch.iterdir()} == {".lock", "late"}
    (scratch / "late").unlink()
    remove_scratch(scratch)
    assert not scratch.exists()
