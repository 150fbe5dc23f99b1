"""The starting process's side: it has a shared process fork what was started, and stands for it until it ends."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

LIBRARIES = ("torch", "numpy", "runner", "runner_flux", "runner_diffusers")
"""Top-level packages whose imports are shared; what a test's own plugins import is not."""
OF_LIBRARIES = ("OMP_", "MKL_", "MALLOC_", "GLIBC_", "LD_", "TORCH", "PYTORCH_", "HF_HUB_", "CUDA", "CUBLAS")
"""Beginnings of environment variables that libraries read when they are loaded."""
CHILDREN = ("measure.log", "check.log")
"""Logs of workers that load no weights: what memory they take is nobody's concern."""
IMPORTS = [
    "runner.worker.loop",
    "runner.worker.check",
    "runner.placement.prepared_folder",
    "runner_diffusers.memory.stages",
    "diffusers.loaders.single_file_model",
    "diffusers.loaders.single_file_utils",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.transformers.transformer_flux",
    "diffusers.models.unets.unet_2d_condition",
    "transformers.models.clip.modeling_clip",
    "transformers.models.t5.modeling_t5",
]
"""What these workers import, those of the models that most tests are of among it."""
LARGEST = 1 << 20  # bytes of a message
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SHARED_FILE = "warm_shared.py"


def hand_over() -> None:
    """Have the module that Python was started with run in a fork; returns only where it is not to be."""
    module, arguments = sys.orig_argv[3], sys.orig_argv[4:]
    imports = _imports(module, arguments)
    if not imports:
        return
    connection = _connect(imports)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    numbers = map(int, os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers
    descriptors = [number for number in numbers if number != connection.fileno() and _is_open(number)]
    start = {
        "module": module,
        "arguments": arguments[:-1],  # the last is the parent's number, which is another one
        "environment": dict(os.environ),
        "path": sys.path,
        "folder": str(Path.cwd()),
        "descriptors": descriptors,
    }
    connection.sendall(json.dumps(start).encode())
    connection.recv(1)
    socket.send_fds(connection, [b"descriptors"], descriptors)
    for descriptor in descriptors:  # they are the fork's: others wait for their ends
        os.close(descriptor)
    code = connection.recv(4)
    connection.recv(1)  # until its descriptors are closed
    os._exit(int(code)) if code else os.kill(os.getpid(), signal.SIGKILL)


def _imports(module: str, arguments: list[str]) -> list[str]:
    """What the process will import, as far as it can be shared; none for one that is better left alone."""
    if module == "runner.worker.forkserver":
        control = socket.socket(fileno=int(arguments[0]))
        first = control.recv(LARGEST, socket.MSG_PEEK)  # the supervisor sends it at once
        control.detach()
        modules = json.loads(first)["preload"] if first else []
        return [name for name in modules if name.partition(".")[0] in LIBRARIES]
    is_child = module == "runner.worker.layout" or Path("/proc/self/fd/2").readlink().name in CHILDREN
    return IMPORTS if is_child else []


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:  # the one that listed them
        return False
    return True


def _connect(modules: list[str]) -> socket.socket:
    """A connection to the shared process with these imports, which is started if it is not there."""
    folder = Path(os.environ["RUNNER_TESTS_WARM"])
    environment = {n: v for n, v in os.environ.items() if n.startswith(OF_LIBRARIES)}
    kind = json.dumps([modules, sys.executable, sorted(environment.items())])
    name = hashlib.sha256(kind.encode()).hexdigest()[:16]
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return _connected(folder / name)
        except OSError:
            _start(folder / name, modules)
        return _connected(folder / name)


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def _start(path: Path, modules: list[str]) -> None:
    """Start the shared process, and wait until it listens."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name(SHARED_FILE)), str(path), *modules],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
