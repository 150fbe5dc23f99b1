"""Groups: where they are found on made-up trees, and what the kernel does with real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runner.machine import cgroup
from runner.machine.cgroup import MemoryGroup, Mounts, container_limit, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
NONE_V1 = "9223372036854771712\n"


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


V1 = "35 31 0:32 {mounted} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "41 31 0:38 / {point} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"


def test_version_2_the_tightest_limit_on_the_way_to_the_root(tmp_path: Path) -> None:
    tree(
        tmp_path / "sys/fs/cgroup",
        {
            "user.slice/memory.max": "4294967296\n",
            "user.slice/app.slice/memory.max": "8589934592\n",
            "user.slice/app.slice/memory.high": "max\n",
            "user.slice/app.slice/term.scope/memory.max": "max\n",
            "other.slice/memory.max": "4096\n",
        },
    )
    mounts = Mounts.read(V2.format(point="/sys/fs/cgroup"), "0::/user.slice/app.slice/term.scope\n", tmp_path)
    assert mounts is not None
    assert mounts.version == 2
    assert mounts.own == tmp_path / "sys/fs/cgroup/user.slice/app.slice/term.scope"
    assert container_limit(mounts) == 4 << 30
    tree(tmp_path / "sys/fs/cgroup", {"user.slice/app.slice/memory.high": "1073741824\n"})
    assert container_limit(mounts) == 1 << 30


def test_hybrid_memory_belongs_to_version_1_and_its_huge_numbers_are_no_limit(tmp_path: Path) -> None:
    tree(
        tmp_path / "sys/fs/cgroup",
        {
            "memory/memory.limit_in_bytes": NONE_V1,
            "memory/job/memory.limit_in_bytes": NONE_V1,
            "unified/memory.max": "4096\n",
        },
    )
    mounts = Mounts.read(
        V1_CPU + V2.format(point="/sys/fs/cgroup/unified") + V1.format(mounted="/"),
        "9:name=systemd:/\n4:memory:/job\n1:cpu,cpuacct:/elsewhere\n0::/\n",
        tmp_path,
    )
    assert mounts == Mounts(1, tmp_path / "sys/fs/cgroup/memory", tmp_path / "sys/fs/cgroup/memory/job")
    assert container_limit(mounts) is None
    tree(tmp_path / "sys/fs/cgroup", {"memory/job/memory.limit_in_bytes": "1048576\n"})
    assert container_limit(mounts) == MIB


@pytest.mark.parametrize(
    ("mounted", "path"),
    [
        ("/docker/3f", "/docker/3f"),  # the host's paths, the container's part of the tree mounted
        ("/", "/docker/3f"),  # a namespace: the path is not under the mount
        ("/", "/../../other"),  # a path above the namespace's root
    ],
)
def test_in_a_container_the_mount_is_the_own_group(tmp_path: Path, mounted: str, path: str) -> None:
    tree(tmp_path / "sys/fs/cgroup/memory", {"memory.limit_in_bytes": "1048576\n"})
    tree(tmp_path / "sys/fs/cgroup", {"other/memory.limit_in_bytes": "4096\n"})
    mounts = Mounts.read(V1.format(mounted=mounted), f"4:memory:{path}\n", tmp_path)
    assert mounts is not None
    assert mounts.own == mounts.top == tmp_path / "sys/fs/cgroup/memory"
    assert container_limit(mounts) == MIB


def test_a_mount_point_with_a_blank_and_a_mount_that_shows_our_group(tmp_path: Path) -> None:
    tree(tmp_path, {"first/memory.max": "max\n", "my groups/job/memory.max": "1048576\n"})
    text = V2.format(point="/first") + V2.format(point="/my\\040groups")
    mounts = Mounts.read(text, "0::/job\n", tmp_path)
    assert mounts is not None
    assert mounts.own == tmp_path / "my groups/job"
    assert container_limit(mounts) == MIB


def test_no_hierarchy_no_group(tmp_path: Path) -> None:
    assert Mounts.read("22 1 8:1 / / rw - ext4 /dev/vda rw\n", "0::/\n", tmp_path) is None


def v2_tree(root: Path, **handed_down: str) -> Mounts:
    """A parent that holds a group only, and in it our own, which has processes."""
    for name, text in handed_down.items():
        place = root / "sys/fs/cgroup" / name.replace("__", "/")
        tree(
            place,
            {
                "cgroup.procs": "",
                "cgroup.controllers": "cpu memory\n",
                "cgroup.subtree_control": text,
            },
        )
    mounts = Mounts.read(V2.format(point="/sys/fs/cgroup"), "0::/app/own\n", root)
    assert mounts is not None
    return mounts


def test_version_2_makes_its_group_beside_ours_which_has_processes(tmp_path: Path) -> None:
    mounts = v2_tree(tmp_path, app="cpu memory\n", app__own="")
    (mounts.own / "cgroup.subtree_control").unlink()  # a folder refuses to be written, as the kernel does
    (mounts.own / "cgroup.subtree_control").mkdir()
    (mounts.own / "memory.max").write_text("1048576\n")
    group = MemoryGroup.make(64 * MIB, mounts)
    assert group is not None
    assert group.folder.parent == mounts.top / "app"
    assert (group.folder / "memory.max").read_text() == str(MIB), "no wider than our own"
    assert group.oom_kills() == 0
    (group.folder / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\n")
    assert group.oom_kills() == 2


def test_version_2_without_the_controller_or_permission_makes_none(tmp_path: Path) -> None:
    mounts = v2_tree(tmp_path, app="cpu\n", app__own="")
    for place in mounts.ancestry():
        (place / "cgroup.controllers").write_text("cpu\n")
    assert MemoryGroup.make(64 * MIB, mounts) is None
    assert not list(tmp_path.rglob("runner-*"))


def test_without_a_count_of_kills_reaching_the_limit_counts_as_one(tmp_path: Path) -> None:
    group = MemoryGroup(tmp_path, 1)
    tree(tmp_path, {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n", "memory.failcnt": "0\n"})
    assert group.oom_kills() == 0
    tree(tmp_path, {"memory.failcnt": "31\n"})
    assert group.oom_kills() == 1


def test_sweep_removes_the_groups_of_dead_runners_only(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    mounts = v2_tree(tmp_path, app="memory\n", app__own="")
    folders = [
        mounts.top / f"app/runner-{dead.pid}-0",
        mounts.top / f"app/sibling/runner-{dead.pid}-1",
        mounts.top / f"app/runner-{os.getpid()}-0",
        mounts.top / "app/runner-up-0",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    assert sweep(mounts) == 2
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    assert sweep(mounts) == 0


# From here on with the kernel's own groups.


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    made = MemoryGroup.make(64 * MIB)
    if made is None:
        pytest.skip("no cgroup can be made here: not Linux, not root, or no delegated memory controller")
    yield made
    made.close()
    assert not made.folder.exists()


def start(group: MemoryGroup, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process under the limit: it begins when it has been added."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"import sys\nsys.stdin.readline()\n{code}", *arguments],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert group.add(child.pid)
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    return child


def test_what_goes_over_is_killed_and_nothing_else(group: MemoryGroup) -> None:
    assert group.oom_kills() == 0
    with start(group, "kept = b'x' * (32 << 20); print(len(kept), flush=True)") as within:
        assert within.stdout is not None
        assert within.stdout.read() == f"{32 * MIB}\n"
    assert within.returncode == 0
    assert group.oom_kills() == 0
    with start(group, "kept = b'x' * (256 << 20); print(len(kept), flush=True)") as over:
        assert over.stdout is not None
        assert over.stdout.read() == ""
    assert over.returncode == -signal.SIGKILL
    assert group.oom_kills() >= 1
    assert len(b"x" * (96 * MIB)) == 96 * MIB, "this process is under no such limit"


def test_the_page_cache_is_reclaimed_before_processes_are_killed(group: MemoryGroup, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    with file.open("wb") as out:
        for _ in range(16):
            out.write(os.urandom(1 * MIB) * 16)
        out.flush()
        os.fsync(out.fileno())
        os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # who reads it first pays for it
    code = "n = 0\nfor part in iter(lambda f=open(sys.argv[1], 'rb'): f.read(1 << 20), b''): n += len(part)\nprint(n)"
    with start(group, code, str(file)) as reader:
        assert reader.stdout is not None
        assert reader.stdout.read() == f"{256 * MIB}\n"
    assert reader.returncode == 0
    assert group.oom_kills() == 0
    stat = dict(line.split() for line in (group.folder / "memory.stat").read_text().splitlines())
    if int(stat.get("file") or stat["cache"]) < 32 * MIB:
        pytest.skip("the file stayed in memory that others pay for, as on tmpfs")


def test_a_limit_is_seen_from_within(group: MemoryGroup) -> None:
    code = "from runner.machine.cgroup import container_limit\nprint(container_limit())"
    with start(group, code) as child:
        assert child.stdout is not None
        seen = int(child.stdout.read())
    assert seen == 64 * MIB


def test_close_waits_for_what_is_exiting_and_never_raises(group: MemoryGroup) -> None:
    with start(group, "kept = b'x' * (48 << 20); print(flush=True); sys.stdin.readline()") as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
        group.close()
        child.wait()
    assert not group.folder.exists()
    group.close()
    assert not group.add(child.pid)


def test_a_group_in_use_stays_until_its_process_has_gone(
    group: MemoryGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(group, "sys.stdin.readline()") as child:
        with monkeypatch.context() as patch:
            patch.setattr(cgroup, "_PATIENCE", 0.1)
            group.close()
        assert group.folder.exists()
        child.communicate("end\n")
    group.close()
    assert not group.folder.exists()


def test_a_runner_that_was_killed_leaves_a_group_that_is_swept(group: MemoryGroup) -> None:
    code = (
        "from runner.machine.cgroup import MemoryGroup\nprint(MemoryGroup.make(1 << 26).folder, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as runner:
        assert runner.stdout is not None
        left = group.folder.parent / runner.stdout.readline().strip().rpartition("/")[2]
        sweep()
        assert left.exists()
        runner.kill()
    sweep()
    assert not left.exists()
