"""Tries an adapter on a model's components from headers and configs alone, with diffusers' own loading code.

Libraries drop what they do not know and fill with zeros what is too small, and go on: here every tensor of
the file must have its place.
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
from runner.placement.adapters import (
    NAMED,
    AdapterFile,
    Elsewhere,
    activate,
    adapter_name,
    empty_module,
    load,
    loader_class,
    loader_of,
    standing_in,
)
from runner.placement.library import MappedModule
from runner.plugins import load_object

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runner.files.header import Header
    from runner.model.checks.adapters import AdapterCheck

ADAPTER = adapter_name(0)
METADATA = "lora_adapter_metadata"
"""The entry of a file's metadata that diffusers makes peft's config from."""
CONFIG = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_rslora", "lora_bias"),
    *("base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version"),  # of training
}
"""What of that may differ from peft's defaults; the rest asks for other computations."""
# by a part of a tensor's name: formats of which diffusers drops parts, or that compute with whole weights
REFUSED = {
    "dora_scale": "it is a DoRA, of which diffusers drops the magnitudes",
    "lora_magnitude_vector": "it is a DoRA, which computes with copies of whole weights",
    "hada_w": "it is a LoHa (LyCORIS), which diffusers does not load",
    "oft_": "it is an OFT adapter, which diffusers does not load",
    "lora_mid": "it is a LoCon with Tucker decomposition, which diffusers does not load",
    "diff_b": "it has differences of biases (`diff_b`), which diffusers drops",
    "string_to_param": "it is a textual inversion, not a LoRA",
    "emb_params": "it is a textual inversion, not a LoRA",
    "ip_adapter": "it is an IP-Adapter, not a LoRA",
}
ONCE = ("norm", "modulation", "adaln", "time_")
"""Parts of names of layers that a step passes once, not with each token: what they return is small."""
TEXT_LIMIT = 300  # characters of a library's message
_SIZES = re.compile(
    r"size mismatch for (?P<name>\S+): .*?torch\.Size\(\[(?P<file>[\d, ]*)\]\).*?"
    r"torch\.Size\(\[(?P<model>[\d, ]*)\]\)"
)
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def try_adapter(check: AdapterCheck) -> AdapterReport:
    """What an adapter adds to each component.

    Raises:
        ModelError: it does not fit the model, or has parts that would be dropped.

    """
    _refuse_formats(check.header)
    recipients = check.recipients
    loadable = loader_class(recipients.pipeline)._lora_loadable_modules  # noqa: SLF001
    modules = {
        name: empty_module(load_object(one.cls), one)
        for name, one in recipients.components.items()
        if name in loadable
    }
    others = {name: Elsewhere(one.config) for name, one in recipients.without(modules).items()}
    loader = loader_of(recipients.pipeline, {**others, **modules})
    with _header_file(check.header) as path, _told() as notes:
        converted = _load(loader, modules, AdapterFile(path, ADAPTER))
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
            raise ModelError(_in_words(error)) from error
    for module in modules.values():
        activate(MappedModule(module, {}), [ADAPTER])
    return dict(loader.converted)


def _account(
    converted: Mapping[str, Any],
    modules: Mapping[str, torch.nn.Module],
    loadable: Collection[str],
    notes: list[str],
) -> None:
    """Check that every tensor has come into a component; note those for components that no stage loads."""
    given = [name for name in converted if not name.endswith("alpha")]
    counts = Counter(name.partition(".")[0] for name in given)
    lost: list[str] = []
    for component, count in counts.items():
        own = [name for name in given if name.partition(".")[0] == component]
        if component in modules:
            there = sum(1 for name, _ in modules[component].named_parameters() if f".{ADAPTER}" in name)
            if there < count:
                lost += _without_layer(own, modules[component]) or own
        elif component in loadable or component.startswith("text_encoder"):
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


def _without_layer(names: Collection[str], module: torch.nn.Module) -> list[str]:
    """The tensors whose names have no adapted layer in them."""
    layers = {name.partition(".lora_")[0] for name, _ in module.named_parameters() if f".{ADAPTER}" in name}
    return [name for name in names if name.partition(".")[2].partition(".lora_")[0] not in layers]


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


def _refuse_formats(header: Header) -> None:
    if not header.tensors:
        raise ModelError("it holds no tensors")
    for part, reason in REFUSED.items():
        if any(part in name for name in header.tensors):
            raise ModelError(reason)
    odd = next(
        (f"{name} as {info.dtype}" for name, info in header.tensors.items() if info.dtype not in _DTYPES), ""
    )
    if odd:
        raise ModelError(f"it holds {odd}, which is not read here")
    _refuse_configs(header.metadata.get(METADATA))


def _refuse_configs(raw: str | None) -> None:
    """Refuse settings of peft that ask for more than plain LoRA: some compute with the model's weights."""
    if not raw:
        return
    from peft import LoraConfig

    try:
        settings = json.loads(raw)
        named = {name.rpartition(".")[2]: value for name, value in settings.items()}
    except (ValueError, AttributeError, RecursionError):
        raise ModelError(f"its metadata is damaged: '{METADATA}' is no JSON table") from None
    usual: dict[str, Any] = LoraConfig().to_dict()
    for name, value in named.items():
        if value and value != usual.get(name) and name not in CONFIG:
            raise ModelError(f"its metadata sets '{name}' of peft, which runner does not take")


@contextmanager
def _header_file(header: Header) -> Iterator[Path]:
    """A file with this header and a hole for its tensors; inside, it is read as tensors without memory."""
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

    Numbers alone are 1, since alphas are divided by and halved until they are small enough; and matrices are
    1 in a corner, or converters take those that stand for several layers for sparse ones of a lower rank.
    """
    found = {}
    for name, info in header.tensors.items():
        size = info.elements * DTYPE_BITS[info.dtype] // 8
        tensor = torch.from_numpy(np.zeros(size, np.uint8)).view(_DTYPES[info.dtype])
        if info.elements:
            at = 0 if math.prod(info.shape) == 1 else info.shape[-1] - 1
            tensor[at] = 1
        found[name] = tensor.view(info.shape)
    return found


@contextmanager
def _told() -> Iterator[list[str]]:
    """Collect what diffusers warns of, but that there is nothing for a component."""
    notes: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and not record.getMessage().startswith("No LoRA keys"):
                notes.append(f"diffusers says: {record.getMessage()[:TEXT_LIMIT]}")

    logger, collector = logging.getLogger("diffusers"), Collector()
    logger.addHandler(collector)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft's, of what is refused here
            yield notes
    finally:
        logger.removeHandler(collector)


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
    first = text.strip().splitlines()[0] if text.strip() else ""
    return f"diffusers cannot load it into this model: {type(error).__name__}: {first[:TEXT_LIMIT]}"
