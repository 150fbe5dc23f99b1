"""Reading an item's inputs from the hand-offs of the stages before it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from safetensors.torch import load as load_tensors

from runner.api import Bundled
from runner.events import Warned
from runner.files import handoff
from runner.files.hashes import HashError
from runner.manifest.params import canonical_files, names_of, validate
from runner.worker.output_writer import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from pydantic import BaseModel

    from runner.api import Stage
    from runner.protocol import Input, JobItem


@dataclass
class ItemInputs:
    """What an item takes from earlier stages."""

    values: dict[str, Any] = field(default_factory=dict)
    """The stage's declared inputs, by name: tensors, texts or paths of files."""
    texts: dict[str, str] = field(default_factory=dict)
    """Texts that replace parameters of the same name."""
    lineage: dict[str, Any] = field(default_factory=dict)
    """The lineage entries of all earlier stages."""

    def params(self, model: type[BaseModel] | None, item: JobItem) -> Any:
        """The item's parameters, validated; None if the stage has none."""
        if model is None:
            return None
        raw = item.params
        return validate(model, replace(raw, values={**raw.values, **self.texts}))

    def warnings(self) -> Iterator[Warned]:
        """Warnings of the earlier stages, perhaps from an earlier run."""
        for stage, entry in self.lineage.items():
            warnings = entry.get("warnings")
            for warning in warnings if isinstance(warnings, list) else ():
                if isinstance(warning, dict) and warning.keys() == {"kind", "message", "details"}:
                    yield Warned(stage=stage, **warning)


def read_inputs(stage: Stage, item: JobItem, model: type[BaseModel] | None) -> ItemInputs:
    """Read the inputs of an item; ``model`` has the stage's parameters.

    Raises:
        OutputError: an earlier stage left out an output that this one needs.
        DamagedError: a hand-off is damaged, or belongs to another key.
        OSError: a hand-off cannot be read.

    """
    optional = {declared.name: declared.optional for declared in stage.inputs}
    parameters = names_of(model) if model else []
    keys = {source.handoff: source.key for source in item.inputs.values()}
    handoffs = {path: handoff.read(path, key) for path, key in keys.items()}
    tensors = {path: load_tensors(found.data) for path, found in handoffs.items()}
    inputs = ItemInputs()
    for found in handoffs.values():
        inputs.lineage |= found.lineage
    for name, source in item.inputs.items():
        value = _value(source, handoffs[source.handoff], tensors[source.handoff])
        if value is not None and name in optional:
            inputs.values[name] = value
        if value is not None and name in parameters:
            inputs.texts[name] = value
        if value is None and not optional.get(name, True):
            raise OutputError(
                f"'{name}' was not made for this item: the stage that makes it may leave it out"
            )
    return inputs


def check_files(params: BaseModel | None, item: JobItem) -> None:
    """Check that the files among an item's parameters are those that its key was made from.

    Raises:
        OutputError: one has changed, or cannot be read.

    """
    try:
        found = canonical_files(params) if params is not None else {}
    except HashError as error:
        raise OutputError(str(error)) from None
    for name, content in found.items():
        if item.lineage["params"][name] != content:
            raise OutputError(f"the file of '{name}' was changed since the run began: run again")


def _value(source: Input, found: handoff.Handoff, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The input's value; None if the earlier stage left that output out."""
    if source.file is not None:
        return source.file if source.output in found.files else None
    if source.output in found.bundles:
        own = handoff.bundled_name(source.output, "")
        named = {n.removeprefix(own): t.clone() for n, t in tensors.items() if n.startswith(own)}
        return Bundled(named, found.bundles[source.output])
    if source.output in found.text:
        return found.text[source.output]
    tensor = tensors.get(source.output)
    # a copy lies at torch's own memory alignment: results would differ in low bits otherwise
    return None if tensor is None else tensor.clone()
