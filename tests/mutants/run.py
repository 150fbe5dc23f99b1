"""Tries each fault of the table in a copy of the tree: ``python tests/mutants/run.py [WORD ...]``.

A fault is *killed* when one of its tests fails, *SURVIVED* when all pass, *stale* when the text that it
replaces is not in its file, or more than once, *late* when its tests take longer than 60 s. The exit code is
0 if all are killed. Words choose the faults whose file, promise or tests have one of them in it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from mutants.table import ROOT, TABLES, Mutant, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIMIT = 60.0  # seconds that the tests of one fault may take
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


@contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of the tree with an environment whose interpreter imports from it, and all else from ours."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder, "tree")
        tree.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=LEFT_OUT)
            elif source.exists():
                shutil.copy2(source, tree / name)
        environment = Path(folder, "environment")
        venv.create(environment, symlinks=True)
        (packages,) = (environment / "lib").glob("python*/site-packages")
        plugins = sorted(str(path) for path in (tree / "plugins").iterdir() if path.is_dir())
        ours = sysconfig.get_path("purelib")
        lines = [str(tree), *plugins, f"import site; site.addsitedir({ours!r})"]
        (packages / "first.pth").write_text("\n".join(lines) + "\n")
        yield tree


def run_tests(tree: Path, ids: Sequence[str], limit: float | None, *options: str) -> tuple[int | None, str]:
    """Run tests in a copy; returns pytest's exit code, None if they took too long, and what it printed."""
    variables = {**os.environ, "PYTHONPATH": "", "TMPDIR": str(tree.parent)}
    command = [str(tree.parent / "environment/bin/python"), "-m", "pytest", "-q", *options, *ids]
    with subprocess.Popen(
        command,
        cwd=tree,
        env=variables,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]
    return process.returncode, printed


def verdict(mutant: Mutant) -> tuple[str, float, str]:
    """What becomes of one fault, the seconds that it took, and what pytest printed."""
    began = time.monotonic()
    printed = ""
    with copied_tree() as tree:
        text = mutant.applied(tree)
        if text is None:
            told = "stale"
        else:
            (tree / mutant.file).write_text(text, encoding="utf-8")
            # a test that hangs fails before the limit, and says where
            code, printed = run_tests(tree, mutant.tests, LIMIT, "-x", "--timeout", str(LIMIT / 2))
            told = {PASSED: "SURVIVED", FAILED: "killed", None: "late"}.get(code, f"error {code}")
            if code is not None and code < 0:  # a signal that was not taken has ended pytest itself
                told = "killed"
    return told, time.monotonic() - began, printed


def check_unchanged(mutants: Sequence[Mutant], jobs: int) -> str:
    """Run the tests of all faults on the tree as it is; returns what pytest printed if one fails."""
    ids = sorted({test for mutant in mutants for test in mutant.tests})
    with copied_tree() as tree:
        code, printed = run_tests(tree, ids, None, "-n", str(jobs))
    return "" if code == PASSED else printed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", type=Path, default=TABLES, help="folder of TOML files with other faults")
    parser.add_argument("--verbose", action="store_true", help="what pytest printed for each")
    parser.add_argument(
        "--skip-unchanged", action="store_true", help="do not run the tests without faults first"
    )
    options = parser.parse_args()
    words = options.words or [""]
    chosen = [m for m in read(options.table) if any(w in f"{m.file} {m.promise} {m.tests}" for w in words)]
    if not options.skip_unchanged and (printed := check_unchanged(chosen, options.jobs)):
        print(printed, "\nthese tests fail without any fault", sep="")
        return 1
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, (told, seconds, printed) in zip(chosen, pool.map(verdict, chosen), strict=True):
            counts[told.split()[0]] += 1
            print(f"{told:<9} {seconds:5.1f} s  {mutant.file}: {mutant.promise}", flush=True)
            if options.verbose or told.startswith("error"):
                print(f"{mutant.old}\n{mutant.new}\n{printed}")
    print(f"{len(chosen)} faults: " + ", ".join(f"{count} {told}" for told, count in sorted(counts.items())))
    return 0 if counts["killed"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
