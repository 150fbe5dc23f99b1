"""The table of faults fits the tree: what it replaces is there, once, and its tests are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from mutants.run import PASSED, copied
from mutants.table import ROOT, Mutant, read
from mutants.warm import SKIPPED

if TYPE_CHECKING:
    from pathlib import Path

MUTANTS = read()


def test_no_fault_is_stale() -> None:
    stale = [f"{m.file}: {m.old!r}" for m in MUTANTS if m.applied(ROOT) is None]
    assert not stale
    assert not [m for m in MUTANTS if m.old == m.new]


def test_the_tests_that_notice_are_there() -> None:
    missing = set()
    for name in {name for mutant in MUTANTS for name in mutant.tests}:
        path, _, function = name.partition("::")
        defined = rf"^def {re.escape(function.partition('[')[0])}\("
        if not function or not re.search(defined, (ROOT / path).read_text(), re.MULTILINE):
            missing.add(name)
    assert not missing


def test_faults_that_could_be_tried_are_reported_apart(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("a = 1\nb = 1\n")
    assert Mutant("one.py", "a = 1", "a = 2", "", ()).applied(tmp_path) == "a = 2\nb = 1\n"
    assert Mutant("one.py", "= 1", "= 2", "", ()).applied(tmp_path) is None
    assert Mutant("one.py", "c", "d", "", ()).applied(tmp_path) is None
    assert Mutant("two.py", "a", "b", "", ()).applied(tmp_path) is None


def test_a_copy_is_what_its_processes_import() -> None:
    file = "tests/runner/machine/test_active_time.py"
    skipped = (
        "import pytest\npytest.importorskip('no_such_package')\n",
        "import pytest\n@pytest.mark.skip\ndef test_a(): ...\ndef test_b(): ...\n",
    )
    with copied() as copy:
        with copy.changed("runner/errors.py", "raise RuntimeError('the copy')\n"):
            code, printed = copy.test(["tests/runner/rundir/test_lock.py"], 60)
        assert (code, "the copy" in printed) == (4, True), printed
        code, printed = copy.test([file], 60)
        assert code == PASSED, printed
        for text in skipped:  # nothing is known of a fault whose tests are: it has not survived
            with copy.changed(file, text):
                code, printed = copy.test([file], 60)
            assert (code, "SKIPPED" in printed) == (SKIPPED, True), printed
    assert pytest.importorskip("runner.errors")
