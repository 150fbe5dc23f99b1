"""Tries each fault of the table in a copy of the tree: ``python tests/mutants/run.py [WORD ...]``.

A fault is *killed* when one of its tests fails, *SURVIVED* when all pass, *stale* when the text that it
replaces is not in its file, or more than once, *late* when its tests take longer than 60 s (``--limit`` gives
them more on a machine that has other work), *skipped* when one of its tests is skipped here and no other fails:
then nothing is known. The exit code is 0 if all are killed. Words choose the faults whose file, promise or tests
have one of them in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutants.table import ROOT, TABLES, Mutant, read
from mutants.warm import SKIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIMIT = 60.0  # seconds that the tests of one fault may take on an idle machine
COPIED = (
    "runner",
    "plugins",
    "tests",
    "manifests",
    "docs",
    "packaging",
    "pyproject.toml",
    "README.md",
    "Makefile",
)
LEFT_OUT = shutil.ignore_patterns("*.egg-info", "node_modules")
PASSED, FAILED = 0, 1  # pytest's exit codes
VERDICTS = {PASSED: "SURVIVED", FAILED: "killed", SKIPPED: "skipped"}


class Copy:
    """A copy of the tree, and a process that runs tests on it."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self._printed = folder / "printed.txt"
        self._changes = 0
        _copy_tree(self.tree)
        self._process = subprocess.Popen(
            [_interpreter(folder, self.tree), "tests/mutants/warm.py"],
            cwd=self.tree,
            env={**os.environ, "PYTHONPATH": "", "TMPDIR": str(folder)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def test(self, ids: Sequence[str], limit: float, *options: str) -> tuple[int, str]:
        """Run tests; returns the code of ``warm.py``, negative if they took too long, and what
        pytest printed.
        """
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        request = {"tests": ids, "options": options, "limit": limit, "printed": str(self._printed)}
        print(json.dumps(request), file=asked, flush=True)
        code = int(answers.readline())
        return code, self._printed.read_text(errors="replace")

    @contextmanager
    def changed(self, file: str, text: str) -> Iterator[None]:
        """Have another text in a file for as long as this lasts."""
        path = self.tree / file
        before, times = path.read_bytes(), path.stat()
        self._changes += 1
        path.write_text(text, encoding="utf-8")
        # compiled modules are distinguished by sizes and seconds
        os.utime(path, (self._changes, self._changes))
        try:
            yield
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def copied() -> Iterator[Copy]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder, closing(Copy(Path(folder))) as copy:
        yield copy


def _copy_tree(tree: Path) -> None:
    tree.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=LEFT_OUT)
        elif source.exists():
            shutil.copy2(source, tree / name)


def _interpreter(folder: Path, tree: Path) -> str:
    """The interpreter of an environment that imports from the tree, and all else from ours."""
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    plugins = sorted(str(path) for path in (tree / "plugins").iterdir() if path.is_dir())
    ours = sysconfig.get_path("purelib")
    lines = [str(tree), *plugins, f"import site; site.addsitedir({ours!r})"]
    (packages / "first.pth").write_text("\n".join(lines) + "\n")
    return str(environment / "bin/python")


class Sandbox:
    """Tries faults, each in one of some copies that is free."""

    def __init__(self, copies: Sequence[Copy], limit: float) -> None:
        self._limit = limit
        self._free: SimpleQueue[Copy] = SimpleQueue()
        self._pool = ThreadPoolExecutor(len(copies))
        for copy in copies:
            self._free.put(copy)

    def verdicts(self, mutants: Sequence[Mutant]) -> Iterator[tuple[str, float, str]]:
        """What becomes of each fault, the seconds that it took, and what
        pytest printed.
        """
        return self._pool.map(self._verdict, mutants)

    def unchanged(self, mutants: Sequence[Mutant]) -> str:
        """Run the tests of all faults on the tree as it is; returns what pytest printed where one fails."""
        files: dict[str, list[str]] = {}
        for name in sorted({name for mutant in mutants for name in mutant.tests}):
            files.setdefault(name.partition("::")[0], []).append(name)
        return "".join(self._pool.map(self._failures, files.values()))

    def _verdict(self, mutant: Mutant) -> tuple[str, float, str]:
        with self._copy() as copy:
            began = time.monotonic()
            text = mutant.applied(copy.tree)
            if text is None:
                return "stale", 0.0, ""
            with copy.changed(mutant.file, text):
                # a test that hangs fails before the limit, and says where
                code, printed = copy.test(
                    mutant.tests, self._limit, "-x", "--timeout", str(self._limit * 0.75)
                )
        # pytest may end otherwise where what a failed test left behind fails too
        if code not in VERDICTS and "\nFAILED " in printed:
            code = FAILED
        verdict = "late" if code < 0 else VERDICTS.get(code, f"error {code}")
        return verdict, time.monotonic() - began, printed

    def _failures(self, ids: Sequence[str]) -> str:
        with self._copy() as copy:
            code, printed = copy.test(ids, self._limit * len(ids))
        return "" if code in (PASSED, SKIPPED) else printed

    @contextmanager
    def _copy(self) -> Iterator[Copy]:
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each fault")
    parser.add_argument("--table", type=Path, default=TABLES, help="folder of TOML files with other faults")
    parser.add_argument("--verbose", action="store_true", help="what pytest printed for each")
    parser.add_argument(
        "--skip-unchanged", action="store_true", help="do not run the tests without faults first"
    )
    options = parser.parse_args()
    words = options.words or [""]
    chosen = [m for m in read(options.table) if any(w in f"{m.file} {m.promise} {m.tests}" for w in words)]
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        sandbox = Sandbox([stack.enter_context(copied()) for _ in range(options.jobs)], options.limit)
        if not options.skip_unchanged and (printed := sandbox.unchanged(chosen)):
            print(printed, "\nthese tests fail without any fault", sep="")
            return 1
        for mutant, (verdict, seconds, printed) in zip(chosen, sandbox.verdicts(chosen), strict=True):
            counts[verdict.split()[0]] += 1
            print(f"{verdict:<9} {seconds:5.1f} s  {mutant.file}: {mutant.promise}", flush=True)
            if options.verbose or verdict.startswith(("error", "skipped")):
                print(f"{mutant.old}\n{mutant.new}\n{printed}")
    print(
        f"{len(chosen)} faults: "
        + ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    )
    return 0 if counts["killed"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
