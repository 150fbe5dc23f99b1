from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import toy_plugin
from long_tests import is_long, stale
from project import Project
from sim.forked import FOLDER, Simulation

# before torch is imported: threads that wait for each other sleep, since other tests compute on the same cores
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out tests that start the command")
    parser.addoption("--long", action="store_true", help="only the tests of long_tests.py, left out else")


def pytest_configure(config: pytest.Config) -> None:
    Project.may_start = not config.getoption("--fast")
    if not hasattr(config, "workerinput") and "RUNNER_TESTS_SHARED" not in os.environ:
        shared = tempfile.mkdtemp(prefix="runner-tests-")
        atexit.register(shutil.rmtree, shared, ignore_errors=True)
        os.environ |= {"RUNNER_TESTS_SHARED": shared, "RUNNER_TESTS_OWNER": str(os.getpid())}
        if sys.platform == "linux":
            os.environ["RUNNER_TESTS_WARM"] = shared


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out long tests, or all others; where files or tests are named, all of them are kept."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    if not config.option.ignore and (old := stale([item.nodeid for item in items])):
        raise pytest.UsageError(f"long_tests.py names tests that there are not: {', '.join(old)}")
    wanted = config.getoption("--long")
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        (kept if is_long(item.nodeid) == wanted else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    made = Project(tmp_path)
    if request.node.get_closest_marker("cold"):
        made.environment.pop("RUNNER_TESTS_WARM", None)
    return made


@pytest.fixture
def toy(project: Project) -> Project:
    """A project with a plugin of two small stages that need no model, and a manifest for them."""
    project.plugin("toy", toy_plugin.TOY)
    project.write("toy.toml", toy_plugin.MANIFEST)
    (project.folder / "flags").mkdir()
    project.environment["TOY_FLAGS"] = str(project.folder / "flags")
    return project


@pytest.fixture(scope="session")
def built_simulation() -> None:
    """The simulated accelerator is built, which takes a minute the first time."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to build the simulated accelerator with")
    subprocess.run([sys.executable, str(FOLDER / "build.py")], check=True)


@pytest.fixture(scope="session")
def simulation(built_simulation: None) -> Simulation:
    """Runs functions in processes of their own that can use the simulated accelerator."""
    return Simulation()


@pytest.fixture
def sim(project: Project, built_simulation: None) -> Project:
    """A project whose commands find the simulated accelerator, and fail if they misuse it."""
    info = "packages/runner_sim-0.1.dist-info"
    project.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: runner-sim\nVersion: 0.1\n")
    project.write(f"{info}/entry_points.txt", "[torch.backends]\nsim = torch_sim.autoload:autoload\n")
    project.environment["PYTHONPATH"] += os.pathsep + str(FOLDER)
    # locks of accelerators lie in the temporary folder: tests beside this one do not wait for its device
    locks = project.folder / "cache/locks"
    locks.mkdir()
    project.environment |= {"RUNNER_ACCELERATOR": "sim", "SIM_CHECK": "1", "TMPDIR": str(locks)}
    return project


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many inputs the properties under tests/fuzz tried."""
    tried: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                kind = Path(report.location[0]).stem.removeprefix("test_")
                tried[kind] += sum(count for name, count in report.user_properties if name == "inputs")
    if any(tried.values()):
        reported = ", ".join(f"{kind} {count}" for kind, count in sorted(tried.items()) if count)
        terminalreporter.write_line(f"fuzzing: {tried.total()} inputs ({reported})")
