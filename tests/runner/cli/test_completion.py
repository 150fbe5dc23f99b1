"""What shells are offered, as a shell asks for it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import toy_plugin

if TYPE_CHECKING:
    from project import Project


def offered(project: Project, line: str) -> list[str]:
    """As bash asks: the words so far, the last of them unfinished."""
    words = line.split(" ")
    environment = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_RUNNER_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", "from runner.cli import main; main()"],
        env={**project.environment, **environment},
        cwd=project.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("runner repr", ["reproduce"]),
        ("runner run t", ["toy.toml"]),
        ("runner plan sub/", ["sub/deep/", "sub/other.toml"]),
        ("runner run toy.toml --fresh ", ["make", "write"]),
        ("runner explain toy.toml --stage w", ["write"]),
        ("runner explain toy.toml --item t", ["two"]),
        ("runner run toy.toml --set budget.d", ["budget.device=cpu"]),
        (
            "runner run toy.toml --set stage.make.with.s",
            ["stage.make.with.seed=0", "stage.make.with.steps=2"],
        ),
        ("runner run toy.toml --set with.s", ["with.seed=0", "with.steps=2"]),
        ("runner run all.toml --set with.s", ["with.seed=0", "with.steps=7"]),
        ("runner run all.toml --set stage.make.with.st", ["stage.make.with.steps=7"]),
        ("runner run --set stage.", []),
        ("runner run nowhere.toml --set stage.", []),
        ("runner run wrong.toml --fresh ", []),
        ("runner plugins check t", ["toy"]),
        ("runner plugins show toy.w", ["toy.write"]),
        ("runner runs show ", ["flux-8gb", "toy"]),
        ("runner runs show f", ["flux-8gb"]),
        ("runner runs clean --dry-run toy ", ["flux-8gb"]),
        ("runner runs show --runs-dir kept ", ["old"]),
        ("runner runs clean --runs-dir nowhere ", []),
        ("runner runs show --runs-dir toy.toml ", []),
    ],
)
def test_a_shell_is_offered_what_could_follow(toy: Project, line: str, expected: list[str]) -> None:
    toy.write("sub/other.toml", "")
    toy.write("sub/notes.txt", "")
    toy.write("sub/deep/one.toml", "")
    toy.write("wrong.toml", "[[[")
    toy.write("all.toml", toy_plugin.MANIFEST + "[with]\nsteps = 7\n")
    for name in (
        "runs/toy/journal.jsonl",
        "runs/flux-8gb/.lock",
        "runs/notes/a.txt",
        "kept/old/manifest.toml",
    ):
        toy.write(name, "")
    assert offered(toy, line) == expected
