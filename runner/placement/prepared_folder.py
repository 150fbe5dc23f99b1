"""Writes a component's weights into a folder that its library loads: quantised with torchao, or as they are.

Which of them are quantised is what ``from_pretrained(quantization_config=...)`` does. The folder is that of
``save_pretrained``; its shards are written one after the other, so that no more than one is
in memory, and what was interrupted goes on after the last whole shard.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from runner.files.header import HeaderError, read_header
from runner.files.storage import write_atomically
from runner.model.quantised import SCHEMES
from runner.model.selection import CONFIG, STEMS, WEIGHTS
from runner.model.shapes import CONVERTED
from runner.placement.families import families, kept_in_float32
from runner.placement.library import MappedModule, open_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from runner.model.files import ComponentFiles

SHARD = 256 << 20  # bytes of numbers before they are quantised: they and the file are in memory at a time
META, HOST = torch.device("meta"), torch.device("cpu")

Weights = dict[str, torch.Tensor]


def write_folder(
    cls: Any,
    files: ComponentFiles,
    scheme: str,
    dtype: torch.dtype,
    target: Path,
    done: Callable[[int, int], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write the component to the folder ``target``; the config is written last.

    ``done`` is called with the bytes that are written so far, and those of all; ``check`` before each file
    is written, and raises an error if those that its weights were read from have changed.

    Raises:
        ModelError: the weights in the files are not those of the class.
        StorageError: the folder cannot be written.

    """
    mapped = open_module(cls, files, dtype)
    chosen = quantised_names(cls, mapped.module, scheme)
    sizes = {name: _size(mapped, weight) for name, weight in names_of(mapped.module)}
    metadata = _metadata(mapped, chosen, scheme)
    shards = _shards(sizes)
    stem = STEMS["diffusers" if "diffusers" in families(cls) else "transformers"][0]
    index: dict[str, str] = {}
    written, total = 0, sum(sizes.values())
    for number, shard in enumerate(shards, 1):
        file = f"{stem}-{number:05}-of-{len(shards):05}{WEIGHTS}"
        tensors = _flattened(mapped, shard, chosen, scheme, META)
        index |= dict.fromkeys(tensors, file)
        if not _is_whole(target / file):
            tensors = _flattened(mapped, shard, chosen, scheme, HOST)
            check()
            write_atomically(target / file, save(tensors, {"format": "pt", **metadata}))
        written += sum(sizes[name] for name in shard)
        done(written, total)
    check()
    table = {"metadata": {"total_size": written}, "weight_map": index}
    write_atomically(target / f"{stem}{WEIGHTS}.index.json", json.dumps(table).encode())
    write_atomically(target / CONFIG, json.dumps(_config(cls, files, scheme)).encode())


def _is_whole(shard: Path) -> bool:
    """Whether a file that an earlier attempt has written is there, as long as its header says."""
    try:
        read_header(shard)
    except (OSError, HeaderError):
        return False
    return True


def tensors_of(cls: Any, module: torch.nn.Module, scheme: str, dtype: torch.dtype) -> Weights:
    """The tensors that :func:`write_folder` writes for a module whose weights are on "meta"."""
    kept = kept_in_float32(cls, dtype)
    dtypes = {
        weight: dtype if kept.isdisjoint(name.split(".")) else torch.float32
        for name, weight in names_of(module)
        if weight.is_floating_point()
    }
    mapped = MappedModule(module, dtypes)
    names = [name for name, _ in names_of(module)]
    return _flattened(mapped, names, quantised_names(cls, module, scheme), scheme, META)


def names_of(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights that are saved, by name: tied ones once, and no buffers that its class makes anew."""
    saved = module.state_dict(keep_vars=True)
    yield from ((name, weight) for name, weight in module.named_parameters() if name in saved)
    yield from ((name, weight) for name, weight in module.named_buffers() if name in saved)


def quantised_names(cls: Any, module: torch.nn.Module, scheme: str) -> frozenset[str]:
    """The weights that the component's library would quantise; none for ``CONVERTED``."""
    if scheme == CONVERTED:
        return frozenset()
    config = _quantization_config(cls, scheme)
    if "diffusers" in families(cls):
        from diffusers.quantizers.torchao import TorchAoHfQuantizer

        quantizer: Any = TorchAoHfQuantizer(config)
        quantizer.offload = False
        kept = [*(cls._keep_in_fp32_modules or ())]
        quantizer._process_model_before_weight_loading(module, None, kept)  # noqa: SLF001
        found = {
            n for n, w in module.named_parameters() if quantizer.check_if_quantized_param(module, w, n, {})
        }
    else:
        from transformers.quantizers.quantizer_torchao import TorchAoHfQuantizer as OfTransformers

        quantizer = OfTransformers(config, pre_quantized=False)
        quantizer._process_model_before_weight_loading(module)  # noqa: SLF001
        found = {n for n, _ in module.named_parameters() if quantizer.param_needs_quantization(module, n)}
    return frozenset(found)


def _quantization_config(cls: Any, scheme: str) -> Any:
    import torchao.quantization

    how = getattr(torchao.quantization, SCHEMES[scheme])()
    if "diffusers" in families(cls):
        from diffusers import TorchAoConfig

        return TorchAoConfig(how)
    from transformers import TorchAoConfig as OfTransformers

    return OfTransformers(how)


def quantised_weight(weight: torch.Tensor, scheme: str) -> torch.Tensor:
    """The weight of a linear layer, quantised by torchao."""
    import torchao.quantization
    from torchao.quantization import quantize_

    rows, columns = weight.shape
    layer = torch.nn.Linear(columns, rows, bias=False, device=META)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    quantize_(layer, getattr(torchao.quantization, SCHEMES[scheme])())
    return layer.weight.detach()


def _flattened(
    mapped: MappedModule, names: Sequence[str], chosen: frozenset[str], scheme: str, device: torch.device
) -> Weights:
    """The tensors of some weights, by the names that they have in files."""
    made = _made(mapped, names, chosen, scheme, device)
    if scheme == CONVERTED:
        return made
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    return dict(flatten_tensor_state_dict(made)[0])


def _metadata(mapped: MappedModule, chosen: frozenset[str], scheme: str) -> dict[str, str]:
    """The metadata of every shard, which describes all quantised weights; computes none of them."""
    if scheme == CONVERTED:
        return {}
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    names = [name for name, _ in names_of(mapped.module)]
    return dict(flatten_tensor_state_dict(_made(mapped, names, chosen, scheme, META))[1])


def _made(
    mapped: MappedModule, names: Sequence[str], chosen: frozenset[str], scheme: str, device: torch.device
) -> Weights:
    weights = dict(names_of(mapped.module))
    made: Weights = {}
    for name in names:
        weight = weights[name]
        if device == META:
            plain = torch.empty(weight.shape, dtype=mapped.dtype_of(weight), device=META)
        else:
            plain = mapped.copy(weight, device)
        made[name] = quantised_weight(plain, scheme) if name in chosen else plain
    return made


def _size(mapped: MappedModule, weight: torch.Tensor) -> int:
    return weight.numel() * mapped.dtype_of(weight).itemsize


def _shards(sizes: dict[str, int]) -> list[list[str]]:
    """The names in shards of about ``SHARD`` bytes, in their order."""
    shards: list[list[str]] = [[]]
    room = SHARD
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = SHARD
        shards[-1].append(name)
        room -= size
    return shards


def _config(cls: Any, files: ComponentFiles, scheme: str) -> dict[str, Any]:
    config = dict(files.shapes.config)
    if scheme == CONVERTED:
        return config
    return {**config, "quantization_config": _quantization_config(cls, scheme).to_dict()}
