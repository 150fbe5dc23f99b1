"""Runs over agents of the plugin ``away``: processes here, with what may befall them."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import psutil
from away_plugin import AWAY
from toy_plugin import STAGES, TOY

if TYPE_CHECKING:
    from pathlib import Path

    from project import Outcome, Project

SENT = {"RUNNER_AGENT_SHARES_FOLDER": "0"}
"""Environment of agents that send their results, as on machines without a shared folder."""

ODD = (
    AWAY
    + """

import contextlib
import json
import os
import pathlib
import struct
import threading

from runner.api import hookimpl  # noqa: F811

HOW = os.environ.get("ODD", "")  # what becomes of the last node's messages


def _frames(held):
    while len(held) >= 12:
        _, head, body = struct.unpack(">4sII", held[:12])
        if len(held) < 12 + head + body:
            break
        yield json.loads(held[12:12 + head]), bytes(held[12 + head:12 + head + body])
        del held[:12 + head + body]


def _packed(head, body):
    text = json.dumps(head).encode()
    return struct.pack(">4sII", b"rnr1", len(text), len(body)) + text + body


class Together(Process):
    # says nothing before all nodes have something to say, so that all take part in the shortest run
    said = False

    def receive(self):
        data = super().receive()
        if not self.said:
            self.said = True
            with contextlib.suppress(threading.BrokenBarrierError):
                self._places.barrier.wait(30)
        return data


class Odd(Together):
    held = bytearray()

    def receive(self):
        data = super().receive()
        if data is None:
            return None
        self.held += data
        return b"".join(self.changed(*frame) for frame in _frames(self.held))

    def changed(self, head, body):
        kind = head["kind"]
        if kind == "piece":
            pathlib.Path(os.environ["TOY_FLAGS"], "sent").touch()
        if HOW == "answer" and kind == "welcome":
            head["answer"] = "another folder's"
        if HOW == "path" and kind == "piece":
            head["name"] = "../../../escaped"
        if HOW == "unasked" and kind == "result":
            head["item"] = "nobody"
        if HOW == "key" and kind == "result":
            head["key"] = "0" * 64
        if HOW == "digest" and kind == "piece":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if HOW == "forged" and kind == "piece":  # as it was sent, and not what it says
            import hashlib
            body = body[:-1] + bytes([body[-1] ^ 1])
            head["sha256"] = hashlib.sha256(body).hexdigest()
        if HOW == "absent" and kind == "piece":
            return b""
        if HOW == "event" and kind == "reported":
            head["event"] = {"event": "run_finished", "exit_code": 0, "outputs": [], "seconds": 1}
        if HOW == "pickle" and kind == "result":
            return b"\\x80\\x04."
        if HOW == "large" and kind == "result":
            return struct.pack(">4sII", b"rnr1", 1 << 31, 0)
        if HOW == "full" and kind in ("piece", "result"):
            return _packed({"kind": "ended", "stage": "make", "code": 9, "error": "its disk is full"}, b"")
        if HOW == "version" and kind == "welcome":
            head["versions"]["torch"] = "1.0"
        if HOW == "stage" and kind == "welcome":
            head["stages"][0]["version"] = 9
        if HOW == "model" and kind == "welcome":
            head["stages"][0]["fingerprint"] = "other"
        return _packed(head, body)


class Processes(Processes):
    def __init__(self, params):
        print("a library has something to say")
        super().__init__(params)
        self._last = params.nodes - 1
        self.barrier = threading.Barrier(params.nodes)

    def new(self):
        numbers, self._missing = self._missing, []
        kinds = [Odd if n == self._last and HOW else Together for n in numbers]
        found = [kind(self, n, self._command) for kind, n in zip(kinds, numbers)]
        for one in found:
            pathlib.Path(os.environ["TOY_FLAGS"], f"{one.name}.pid").write_text(str(one._popen.pid))
        return found
"""
)


SLAY = """
    if how == "slay":  # kills the agent of its worker: who holds the lock of the folder that its log is in
        lock = os.readlink("/proc/self/fd/2").partition("/run/logs/")[0] + "/.lock"
        for descriptor in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if os.readlink(descriptor) == lock:
                    os.kill(int(descriptor.parts[2]), signal.SIGKILL)
            except OSError:
                pass
        time.sleep(60)
"""


STRAGGLE = """
    if how == "straggle":  # never ends where it was begun first
        import torch
        try:
            pathlib.Path(os.environ["TOY_FLAGS"], "straggles").touch(exist_ok=False)
        except FileExistsError:
            return
        while True:
            item.step(1, 2, torch.zeros(1))
            time.sleep(0.01)
"""


BEHAVING = TOY.replace("def behave(how, item):\n", "def behave(how, item):\n" + SLAY + STRAGGLE)
"""The toy's plugin, with what may happen to nodes."""


def away(project: Project, nodes: int, items: str, name: str = "toy", sets: str = "") -> None:
    """Install the plugin, and write ``toy.toml``, of the toy's stages, and ``away.toml``, which is run by nodes."""
    project.plugin("away", ODD)
    project.plugin("toy", BEHAVING)
    toy = STAGES.replace('name = "toy"', f'name = "{name}"', 1) + sets + items
    project.write("toy.toml", toy)
    project.write("away.toml", f'{toy}\n[executor]\nuses = "away"\nnodes = {nodes}\n')


def prompts(count: int) -> str:
    return f"[batch]\nprompts = {json.dumps([f'prompt {n}' for n in range(count)])}\n"


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of all that a run leaves for people and for later stages."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("outputs", "handoff")
        for path in sorted((run / part).rglob("*"))
        if path.is_file()
    }


def made(outcome: Outcome) -> list[tuple[str, str]]:
    """Stage and item of all that got done, sorted: each is there once, if it was made once."""
    return sorted((e["stage"], e["item"]) for e in outcome.of("item_finished") if e["status"] == "done")


def nodes_of(outcome: Outcome) -> set[str]:
    return {e["node"] for e in outcome.of("item_finished")}


def agents(project: Project) -> list[psutil.Process]:
    """Agents of the project's runs, and their children."""
    folder = str(project.folder)
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            environment: dict[str, Any] = process.environ() if "runner.remote.agent" in words else {}
            if environment.get("RUNNER_CACHE", "").startswith(folder + os.sep):
                found += [process, *process.children(recursive=True)]
        except psutil.Error:
            continue
    return [process for process in found if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def local(project: Project) -> dict[str, str]:
    """What a run on this machine leaves; it is moved away."""
    outcome = project.runner("run", "toy.toml")
    assert outcome.code in (0, 1), outcome
    found = digests(project.folder / "runs/toy")
    (project.folder / "runs").rename(project.folder / "local")
    return found


def run(project: Project, *arguments: str) -> Outcome:
    """Run the toy's stages on the nodes of the manifest that :func:`away` writes."""
    return project.runner("run", "away.toml", "--json", *arguments, seconds=100)
