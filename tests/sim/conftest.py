from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sim.forked import Simulation

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """Processes with simulated devices; built first where a compiler is there, else the test is skipped."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to build the simulated accelerator with")
    subprocess.run([sys.executable, str(HERE / "build.py")], check=True)
    return Simulation()
