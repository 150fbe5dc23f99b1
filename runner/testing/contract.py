"""What the engine relies on, as tests of one stage. The checks are those of ``runner plugins check``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from runner.plugin_check import checks
from runner.plugin_check.examine import examine_stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.plugin_check.checks import Verdict


class StageContract:
    """Tests that a stage keeps what the engine relies on.

    A subclass names an installed stage, and gives what two items of it are made from. What is left out is
    made up from what the stage declares::

        class TestBlur(StageContract):
            stage = "blur.blur"
            params = {"sigma": 2.0}

            def inputs(self, item):
                return {"image": torch.rand(3, 16, 24 + 8 * item)}

    All tests of a class look at the same run, which is made when the first one needs it.
    """

    __test__ = False

    stage: ClassVar[str]
    """PLUGIN.STAGE, as manifests name it."""
    params: ClassVar[Mapping[str, Any]] = {}
    """Parameters of the items. A ``seed``, if it is none of them, is each item's own."""
    other: ClassVar[Mapping[str, Any]] = {}
    """What the second item has instead: another prompt, another size."""
    model: ClassVar[str | Path] = ""
    """A folder with a small model, or ``"plugin:NAME/FOLDER"``; for stages that load components."""
    dtype: ClassVar[str] = "float32"
    """What it computes in."""
    timeout: ClassVar[float] = 120
    """Seconds that the plugin has to load, and the stage for all of its trials."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__test__ = cls.__dict__.get("__test__", True)

    def inputs(self, item: int) -> Mapping[str, Any]:
        """Return the inputs of an item (0 or 1) by name: tensors, strings, and paths of files.

        Give the two different values, and different sizes where the stage allows that.
        """
        del item
        return {}

    def test_loads(self) -> None:
        self._hold(checks.LOADS)

    def test_imports(self) -> None:
        self._hold(checks.IMPORTS)

    def test_params(self) -> None:
        self._hold(checks.PARAMS)

    def test_formula(self) -> None:
        self._hold(checks.FORMULA)

    def test_runs(self) -> None:
        self._hold(checks.RUNS)

    def test_outputs(self) -> None:
        self._hold(checks.OUTPUTS)

    def test_repeats(self) -> None:
        self._hold(checks.REPEATS)

    def test_interleaves(self) -> None:
        self._hold(checks.INTERLEAVES)

    def test_streams(self) -> None:
        self._hold(checks.STREAMS)

    def test_resumes(self) -> None:
        self._hold(checks.RESUMES)

    def test_finite(self) -> None:
        self._hold(checks.FINITE)

    def test_memory(self) -> None:
        self._hold(checks.MEMORY)

    def _hold(self, check: str) -> None:
        """Fail if this check did not go well; skip if it was not come to."""
        verdicts = _verdicts(type(self))
        found = next((verdict for verdict in verdicts if verdict.check == check), None)
        if found is None:
            why = next(verdict for verdict in verdicts if verdict.status != checks.OK)
            pytest.skip(f"not come to: {why.check}: {why.told}")
        if found.status != checks.OK:
            lines = (f"{found.subject}: {found.told}", found.advice and f"> {found.advice}", found.log)
            pytest.fail("\n".join(filter(None, lines)), pytrace=False)


_found: dict[type[StageContract], list[Verdict]] = {}


def _verdicts(contract: type[StageContract]) -> list[Verdict]:
    if contract not in _found:
        _found[contract] = _examine(contract)
    return _found[contract]


def _examine(contract: type[StageContract]) -> list[Verdict]:
    with tempfile.TemporaryDirectory(prefix="runner-contract-") as folder:
        given = [contract().inputs(item) for item in range(2)]
        case = {
            "params": [{**contract.params}, {**contract.params, **contract.other}],
            "inputs": [
                _saved(inputs, Path(folder, f"given-{n}")) for n, inputs in enumerate(given) if inputs
            ],
            "model": _source(contract.model),
            "dtype": contract.dtype,
        }
        return examine_stage(contract.stage, case, Path(folder), contract.timeout)


def _source(model: str | Path) -> str:
    """As a manifest has it: a folder is told from a hub's name by how it begins."""
    is_folder = isinstance(model, Path) or model.startswith((".", "~"))
    return str(Path(model).expanduser().absolute()) if is_folder else str(model)


def _saved(inputs: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Inputs as the process that tries the stage reads them."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    path = folder / "tensors.safetensors"
    save_file({n: v.contiguous() for n, v in inputs.items() if isinstance(v, torch.Tensor)}, path)
    texts = {name: value for name, value in inputs.items() if isinstance(value, str)}
    files = {n: str(Path(v).absolute()) for n, v in inputs.items() if isinstance(v, os.PathLike)}
    unknown = inputs.keys() - {*texts, *files, *(n for n, v in inputs.items() if isinstance(v, torch.Tensor))}
    if unknown:
        raise TypeError(f"inputs are tensors, strings or paths; '{min(unknown)}' is none of them")
    return {"tensors": str(path), "texts": texts, "files": files}
