"""Tries an adapter on a model's components from headers and configs alone, with diffusers' own loading code.

Libraries silently drop tensors that they do not know and zero-pad small ones. Here, each tensor of
the file must be loaded into a component.
"""

from __future__ import annotations

import json
import logging
import math
import re
import struct
import tempfile
import warnings
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch

from runner.errors import ModelError
from runner.files.header import DTYPE_BITS
from runner.model.checks.adapters import AdapterReport
from runner.placement.adapter_formats import DTYPES, refuse_formats
from runner.placement.adapters import (
    NAMED,
    AdapterFile,
    Elsewhere,
    activate,
    adapter_name,
    load,
    loader_class,
    loader_of,
    standing_in,
)
from runner.placement.library import MappedModule, without_weights
from runner.placement.traced import TracedTensor, left_out, refuse_left_out
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runner.files.header import Header
    from runner.model.checks.adapters import AdapterCheck

ADAPTER = adapter_name(0)
ONCE = ("norm", "modulation", "adaln", "time_")
"""Parts of names of layers that a step passes once, not with each token: what they return is small."""
TEXT_LIMIT = 300  # characters of a library's message
_DROPS = re.compile("unsupported|filter|purge|not handle", re.IGNORECASE)
"""Words by which diffusers says, without a warning, that it leaves tensors out."""
_LORA = re.compile(r"[._]lora[._]")
"""Ends the name of a layer in that of a tensor."""
_TEXT_ENCODER = re.compile(r"text_encoder(_\d+)?")
_SIZES = re.compile(
    r"size mismatch for (?P<name>\S+): .*?torch\.Size\(\[(?P<file>[\d, ]*)\]\).*?"
    r"torch\.Size\(\[(?P<model>[\d, ]*)\]\)"
)


def try_adapter(check: AdapterCheck) -> AdapterReport:
    """What an adapter adds to each component.

    Raises:
        ModelError: it does not fit the model, or has parts that would be dropped.

    """
    refuse_formats(check.header)
    recipients = check.recipients
    loadable = loader_class(recipients.pipeline)._lora_loadable_modules  # noqa: SLF001
    modules = {
        name: without_weights(load_object(one.cls), one.config)
        for name, one in recipients.components.items()
        if name in loadable
    }
    others = {name: Elsewhere(one.config) for name, one in recipients.without(modules).items()}
    loader = loader_of(recipients.pipeline, {**others, **modules})
    with _header_file(check.header) as path, _collected_notes() as notes:
        missed = left_out(loader, check.header)
        converted = _load(loader, modules, AdapterFile(path, ADAPTER))
    refuse_left_out(missed, notes)
    layers = {name: found for name, one in modules.items() if (found := _layers(one))}
    _account(converted, modules, loadable, notes)
    if "transformer" in layers and "transformer_2" in {*modules} - {*layers}:
        notes.append("it changes 'transformer' alone: diffusers loads nothing into 'transformer_2'")
    return AdapterReport(layers, tuple(dict.fromkeys(notes)))


def _load(loader: Any, modules: Mapping[str, torch.nn.Module], file: AdapterFile) -> Mapping[str, Any]:
    """Load into all modules; returns the tensors by the names that diffusers converted theirs to."""
    with ExitStack() as stack:
        for module in modules.values():
            stack.enter_context(standing_in(MappedModule(module, {})))
        try:
            load(loader, file)
        except Exception as error:
            _refuse_halves(loader.converted)
            raise ModelError(_in_words(error)) from error
    _refuse_halves(loader.converted)
    for module in modules.values():
        activate(MappedModule(module, {}), [ADAPTER])
    return dict(loader.converted)


def _account(
    converted: Mapping[str, Any],
    modules: Mapping[str, torch.nn.Module],
    loadable: Collection[str],
    notes: list[str],
) -> None:
    """Check that every tensor was loaded; add notes on those for components that no stage loads."""
    given = [name for name in converted if not name.endswith("alpha")]
    counts = Counter(name.partition(".")[0] for name in given)
    lost: list[str] = []
    for component, count in counts.items():
        own = [name for name in given if name.partition(".")[0] == component]
        if component in modules:
            there = sum(1 for name, _ in modules[component].named_parameters() if f".{ADAPTER}" in name)
            if there < count:
                lost += _without_layer(own, modules[component]) or own
        elif component in loadable or _TEXT_ENCODER.fullmatch(component):
            notes.append(
                f"{count} of its {len(given)} weights are for '{component}', which no stage of this manifest "
                "loads: they have no effect"
            )
        else:
            lost += own
    found = sum(f".{ADAPTER}" in name for one in modules.values() for name, _ in one.named_parameters())
    if lost or not found:
        lost = lost or given
        more = ", ..." if len(lost) > NAMED else ""
        known = " or ".join(modules) or "any component that a stage of this manifest loads"
        raise ModelError(
            f"{len(lost)} of its {len(given)} weights belong to no layer of {known} "
            f"({', '.join(lost[:NAMED])}{more}), and diffusers would drop them: it is for another model, "
            "or has names that diffusers does not know"
        )


def _refuse_halves(converted: Collection[str]) -> None:
    """Refuse one matrix of a LoRA pair (``lora_A``, ``lora_B``) without the other."""
    halves = [name for name in converted if _other_half(name) not in converted]
    if halves:
        raise ModelError(
            f"it lacks the other half of {len(halves)} of its weights (such as {_other_half(halves[0])}), "
            "which libraries fill with random numbers: the file was cut, or saved wrongly"
        )


def _other_half(name: str) -> str:
    """The name of the other matrix of a LoRA pair; the name itself if there is none, as for a bias."""
    for down, up in (("lora_A.weight", "lora_B.weight"), (".down.weight", ".up.weight")):
        for one, other in ((down, up), (up, down)):
            if name.endswith(one):
                return name.removesuffix(one) + other
    return name


def _without_layer(names: Collection[str], module: torch.nn.Module) -> list[str]:
    """The tensors whose names have no adapted layer in them."""
    layers = {name.partition(".lora_")[0] for name, _ in module.named_parameters() if f".{ADAPTER}" in name}
    return [name for name in names if _layer_of(name) not in layers]


def _layers(module: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """By adapted layer: the numbers of the adapter's weights, and of what the layer returns for a token."""
    found: dict[str, tuple[int, int]] = {}
    for name, weight in module.named_parameters():
        layer, dot, _ = name.partition(".lora_")
        if not dot:
            layer, dot, _ = name.partition(".lokr_")
        if dot:
            numbers, width = found.get(layer, (0, 0))
            base = module.get_submodule(layer).get_base_layer().weight  # type: ignore[operator]
            rows = 0 if any(part in layer for part in ONCE) else base.shape[0]
            found[layer] = (numbers + weight.numel(), max(width, rows))
    return found


def _layer_of(name: str) -> str:
    """The layer that a tensor is for, by its name which may be an older one of a UNet."""
    layer = _LORA.split(name.partition(".")[2])[0]
    owner, processor, last = layer.rpartition(".processor.")
    return f"{owner}.{'to_out.0' if last == 'to_out' else last}" if processor else layer


@contextmanager
def _header_file(header: Header) -> Iterator[Path]:
    """Yields a sparse file with this header; inside the block, it is read as zeros without memory."""
    with tempfile.TemporaryDirectory(prefix="runner-lora-") as folder:
        path = Path(folder, "lora.safetensors")
        tables: dict[str, Any] = {"__metadata__": dict(header.metadata)} if header.metadata else {}
        end = 0
        for name, info in header.tensors.items():
            size = info.elements * DTYPE_BITS[info.dtype] // 8
            tables[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": [end, end + size]}
            end += size
        raw = json.dumps(tables).encode()
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(raw)) + raw)
            file.truncate(8 + len(raw) + end)
        plain = safetensors.torch.load_file
        safetensors.torch.load_file = lambda *_args, **_options: _tensors(header)
        try:
            yield path
        finally:
            safetensors.torch.load_file = plain


def _tensors(header: Header) -> dict[str, torch.Tensor]:
    """Zeros, of which the system allocates only the pages that are written to.

    Scalars are 1: converters divide by alphas, and halve them in a loop until they are small. Matrices have
    a 1 in a corner: otherwise converters take fused matrices for sparse ones of a lower rank.
    """
    found = {}
    for name, info in header.tensors.items():
        size = info.elements * DTYPE_BITS[info.dtype] // 8
        tensor = torch.from_numpy(np.zeros(size, np.uint8)).view(DTYPES[info.dtype])
        if info.elements:
            at = 0 if math.prod(info.shape) == 1 else info.shape[-1] - 1
            tensor[at] = 1
        made = tensor.view(info.shape)
        found[name] = made if name.endswith("alpha") else TracedTensor.of(made, name)
    return found


@contextmanager
def _collected_notes() -> Iterator[list[str]]:
    """Collect diffusers' warnings and messages about dropped tensors, but not "No LoRA keys" ones."""
    notes: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            is_warning = record.levelno >= logging.WARNING and not message.startswith("No LoRA keys")
            if is_warning or _DROPS.search(message):
                notes.append(f"diffusers says: {message[:TEXT_LIMIT]}")

    logger, collector = logging.getLogger("diffusers"), Collector()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(collector)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's, of what is refused here
            yield notes
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)


def _in_words(error: Exception) -> str:
    """The message for an error of a library while it loads an adapter."""
    text = str(error)
    if sizes := _SIZES.search(text):
        stored, taken = (found.replace(", ", " x ") for found in (sizes["file"], sizes["model"]))
        name = sizes["name"].replace(f".{ADAPTER}", "")
        other = "it is for another model, or for another size of it"
        return f"{other}: {name} is {stored}, and here it would be {taken}"
    if "Target modules" in text or "target_modules" in text:
        return f"it is for another model: its layers are not in this one ({text[:TEXT_LIMIT]})"
    words = " ".join(text.split())[:TEXT_LIMIT]  # the first line alone may be a title
    return f"diffusers cannot load it into this model: {type(error).__name__}: {words}"
