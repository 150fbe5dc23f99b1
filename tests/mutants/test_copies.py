"""A fault is tried in a copy of the tree, which is all that its tests see."""

from __future__ import annotations

from mutants.run import copied_tree, run_tests


def test_a_copy_is_what_its_processes_import() -> None:
    with copied_tree() as tree:
        (tree / "runner/errors.py").write_text("raise RuntimeError('the copy')\n")
        code, printed = run_tests(tree, ["tests/runner/test_lock.py"], 60)
        assert code not in (0, 1), printed  # pytest itself could not begin
        assert "RuntimeError: the copy" in printed
