"""Compile the simulated accelerator in place, with g++ alone: ``python tests/sim/build.py``.

Nothing is done if the sources and PyTorch are those of the last time. About a minute and a half of one core's time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"  # what is about to be replaced must not be loaded

import torch

PACKAGE = Path(__file__).parent / "torch_sim"
SOURCES = sorted((PACKAGE / "csrc").glob("*.cpp"))
HEADERS = sorted((PACKAGE / "csrc").glob("*.h"))
LIBRARY = PACKAGE / "_C.so"
STAMP = PACKAGE / "_C.stamp"
OBJECTS = PACKAGE / "csrc" / "objects"
TORCH = Path(torch.__file__).parent


def _compile(source: Path) -> Path:
    target = OBJECTS / f"{source.stem}.o"
    includes = [TORCH / "include", TORCH / "include/torch/csrc/api/include", sysconfig.get_path("include")]
    abi = int(torch.compiled_with_cxx11_abi())
    subprocess.run(
        [
            *("g++", "-c", str(source), "-o", str(target), "-std=c++20", "-O1", "-fPIC", "-Wall"),
            *("-Wno-sign-compare", "-DTORCH_EXTENSION_NAME=_C", f"-D_GLIBCXX_USE_CXX11_ABI={abi}"),
            *(f"-isystem{folder}" for folder in includes),
        ],
        check=True,
    )
    return target


def _link(objects: list[Path]) -> None:
    libraries = ("c10", "torch", "torch_cpu", "torch_python")
    fresh = LIBRARY.with_suffix(".new")
    subprocess.run(
        [
            *("g++", "-shared", *map(str, objects), "-o", str(fresh), f"-L{TORCH / 'lib'}"),
            *(f"-l{name}" for name in libraries),
            f"-Wl,-rpath,{TORCH / 'lib'}",
        ],
        check=True,
    )
    fresh.replace(LIBRARY)


def _stamp() -> str:
    digest = hashlib.sha256(f"{torch.__version__} {sys.version}".encode())
    for file in (*SOURCES, *HEADERS, Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def build() -> None:
    """Build the library if it is not there or not of these sources.

    Raises:
        subprocess.CalledProcessError: the compiler says why.

    """
    with STAMP.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        _build()


def _build() -> None:
    stamp = _stamp()
    if LIBRARY.exists() and STAMP.exists() and STAMP.read_text() == stamp:
        return
    OBJECTS.mkdir(exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        _link(list(pool.map(_compile, SOURCES)))
    shutil.rmtree(OBJECTS)
    STAMP.write_text(stamp)


if __name__ == "__main__":
    build()
