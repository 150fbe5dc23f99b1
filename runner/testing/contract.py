"""The checks of ``runner plugins check`` as a test class for one stage."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from runner.plugin_check import checks
from runner.plugin_check.checker import check_stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.plugin_check.checks import Verdict


class StageContract:
    """Tests that a stage behaves as the engine requires.

    A subclass names an installed stage, and the parameters and inputs of two items. What it leaves out is
    generated from the stage's declaration::

        class TestBlur(StageContract):
            stage = "blur.blur"
            params = {"sigma": 2.0}

            def inputs(self, item):
                return {"image": torch.rand(3, 16, 24 + 8 * item)}

    The checks run once for a class, when its first test needs them.
    """

    __test__ = False

    stage: ClassVar[str]
    """PLUGIN.STAGE, as manifests name it."""
    params: ClassVar[Mapping[str, Any]] = {}
    """Parameters of both items. Without a ``seed`` among them, each item gets its own. A file is a Path."""
    other: ClassVar[Mapping[str, Any]] = {}
    """Parameters that differ for the second item: another prompt, another size."""
    model: ClassVar[str | Path] = ""
    """For stages that load components: a folder with a small model, or ``"plugin:NAME/FOLDER"``."""
    dtype: ClassVar[str] = "float32"
    """The stage's compute dtype."""
    timeout: ClassVar[float] = 120
    """Seconds for the plugin to load, and for all checks that run the stage."""

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
        self._require(checks.LOADS)

    def test_imports(self) -> None:
        self._require(checks.IMPORTS)

    def test_params(self) -> None:
        self._require(checks.PARAMS)

    def test_formula(self) -> None:
        self._require(checks.FORMULA)

    def test_runs(self) -> None:
        self._require(checks.RUNS)

    def test_outputs(self) -> None:
        self._require(checks.OUTPUTS)

    def test_repeats(self) -> None:
        self._require(checks.REPEATS)

    def test_interleaves(self) -> None:
        self._require(checks.INTERLEAVES)

    def test_streams(self) -> None:
        self._require(checks.STREAMS)

    def test_resumes(self) -> None:
        self._require(checks.RESUMES)

    def test_finite(self) -> None:
        self._require(checks.FINITE)

    def test_memory(self) -> None:
        self._require(checks.MEMORY)

    def _require(self, check: str) -> None:
        """Fail if this check found a fault; skip if an earlier one kept it from being run."""
        verdicts = _verdicts(type(self))
        verdict = next((verdict for verdict in verdicts if verdict.check == check), None)
        if verdict is None:
            cause = next(verdict for verdict in verdicts if verdict.status != checks.OK)
            pytest.skip(f"not reached: {cause.check}: {cause.message}")
        if verdict.status != checks.OK:
            lines = (
                f"{verdict.subject}: {verdict.message}",
                verdict.advice and f"> {verdict.advice}",
                verdict.log,
            )
            pytest.fail("\n".join(filter(None, lines)), pytrace=False)


_verdicts_by_class: dict[type[StageContract], list[Verdict]] = {}


def _verdicts(contract: type[StageContract]) -> list[Verdict]:
    if contract not in _verdicts_by_class:
        _verdicts_by_class[contract] = _check(contract)
    return _verdicts_by_class[contract]


def _check(contract: type[StageContract]) -> list[Verdict]:
    """Run the checks on the contract's two items."""
    with tempfile.TemporaryDirectory(prefix="runner-contract-") as folder:
        given = [contract().inputs(item) for item in range(2)]
        case = {
            "params": _given([{**contract.params}, {**contract.params, **contract.other}]),
            "inputs": [
                _saved(inputs, Path(folder, f"given-{n}")) for n, inputs in enumerate(given) if inputs
            ],
            "model": _source(contract.model),
            "dtype": contract.dtype,
        }
        return check_stage(contract.stage, case, Path(folder), contract.timeout)


def _given(value: Any) -> Any:
    """Parameters as a manifest has them: paths as absolute ones."""
    if isinstance(value, dict):
        return {name: _given(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_given(one) for one in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def _source(model: str | Path) -> str:
    """The model as a manifest names it; a string that starts like a path is a folder."""
    is_folder = isinstance(model, Path) or model.startswith((".", "~"))
    return str(Path(model).expanduser().absolute()) if is_folder else str(model)


def _saved(inputs: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write an item's inputs to files, for the process that checks the stage."""
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
