"""Loads a component from a single file of weights, with diffusers' conversion of other programs' names."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from runner.errors import ModelError
from runner.files.gguf import FORMATS, NUMBERS, PLAIN
from runner.model.scales import scales_of
from runner.placement.families import kept_in_float32
from runner.stream.scaled import ScaledWeight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runner.files.header import TensorInfo

T5 = "T5EncoderModel"
ENCODERS = {"Text": "text_model", "Vision": "vision_model"}
"""The inner model of a class, by a word in its name."""
Weights = dict[str, torch.Tensor]
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}


def checkpoint_of(tensors: Mapping[str, TensorInfo], bytes_of: Callable[[str], torch.Tensor]) -> Checkpoint:
    """A file's tensors as diffusers takes them; ``bytes_of`` returns those of one, as uint8.

    fp8 weights that have scales are :class:`ScaledWeight`, and their scales are no tensors of their own.
    """
    made = {name: _tensor(info, bytes_of(name)) for name, info in tensors.items()}
    scales = scales_of(tensors)
    weights: Weights = {}
    for name, tensor in made.items():
        if name in scales.beside:
            continue
        scale = scales.of.get(name)
        weights[name] = tensor if scale is None else ScaledWeight.of(tensor, made[scale])
    return Checkpoint(weights)


def _tensor(info: TensorInfo, raw: torch.Tensor) -> torch.Tensor:
    if info.dtype not in FORMATS or info.dtype in PLAIN:
        return _viewed(raw, DTYPES[info.dtype]).view(info.shape)
    import gguf
    from diffusers.quantizers.gguf.utils import GGUFParameter

    kind = FORMATS[info.dtype]
    rows = raw.view(*info.shape[:-1], info.shape[-1] // kind.elements * kind.size)
    made: torch.Tensor = GGUFParameter(rows, quant_type=gguf.GGMLQuantizationType(NUMBERS[info.dtype]))
    return made


def _viewed(raw: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes as numbers, wherever they begin: files of older versions of safetensors are not aligned.

    They are still those of the file: torch refuses such views, and NumPy does not.
    """
    if raw.storage_offset() % dtype.itemsize == 0:
        return raw.view(dtype)
    return torch.from_numpy(raw.numpy().view(f"int{8 * dtype.itemsize}")).view(dtype)


class Checkpoint(Weights):
    """Notes which tensors were taken."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(tensors)
        self.all = tuple(tensors)
        self.taken: set[str] = set()

    def __getitem__(self, name: str) -> torch.Tensor:
        self.taken.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.taken.add(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self.taken.add(name)
        return super().pop(name, *default)

    def items(self) -> Any:
        self.taken |= {*self}
        return super().items()


@contextmanager
def _captured(found: list[tuple[torch.nn.Module, Weights]]) -> Iterator[None]:
    """Have diffusers keep what it has converted, with the module without weights, rather than load it."""
    from diffusers.loaders import single_file_model, single_file_utils

    places: tuple[Any, ...] = (single_file_model, single_file_utils)
    real = [place.load_model_dict_into_meta for place in places]

    def keep(model: torch.nn.Module, state_dict: Weights, *_args: Any, **_options: Any) -> Any:
        found.append((model, state_dict))
        raise _ConvertedError

    try:
        for place in places:
            place.load_model_dict_into_meta = keep
        yield
    except _ConvertedError:
        pass
    finally:
        for place, function in zip(places, real, strict=True):
            place.load_model_dict_into_meta = function


class _ConvertedError(Exception):
    """Ends diffusers' loading after the conversion."""


def converted(cls: Any, checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[torch.nn.Module, Weights]:
    """A module without weights, and the file's weights by the module's names.

    ``config`` is the content of the component's ``config.json``.

    Raises:
        ModelError: diffusers does not load this class from single files, or the file is not of it.

    """
    found: list[tuple[torch.nn.Module, Weights]] = []
    with _captured(found), tempfile.TemporaryDirectory(prefix="runner-layout-") as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        load_converted(cls, checkpoint, Path(folder), torch.bfloat16)
    if not found:
        raise ModelError(f"diffusers does not load a {cls.__name__} from a single file")
    model, weights = found[0]
    if hasattr(cls, "config_class"):
        model.tie_weights()  # type: ignore[operator]
    return model, weights


class _WithoutCopies(TorchFunctionMode):
    """Skips a needless copy in conversions: concatenating a single tensor returns it unchanged."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.cat and len(args[0]) == 1:
            return args[0][0]
        return func(*args, **(kwargs or {}))


def load_converted(cls: Any, checkpoint: Checkpoint, config: Path, dtype: torch.dtype) -> Any:
    """The module as diffusers loads it from the file; raises as :func:`converted`."""
    with _WithoutCopies():
        return _load(cls, checkpoint, config, dtype)


def _load(cls: Any, checkpoint: Checkpoint, config: Path, dtype: torch.dtype) -> Any:
    from diffusers.loaders.single_file_utils import (
        create_diffusers_clip_model_from_ldm,
        create_diffusers_t5_model_from_checkpoint,
        is_clip_model_in_single_file,
        is_t5_in_single_file,
    )

    options: dict[str, Any] = {"config": str(config), "torch_dtype": dtype, "local_files_only": True}
    if hasattr(cls, "from_single_file"):
        return cls.from_single_file(checkpoint, **options, **_quantised(checkpoint, dtype))
    if not hasattr(cls, "config_class"):
        raise ModelError(f"diffusers does not load a {cls.__name__} from a single file")
    if any(hasattr(tensor, "quant_type") for tensor in checkpoint.values()):
        raise ModelError("text encoders are not read from GGUF: get a .safetensors file")
    if is_clip_model_in_single_file(cls, checkpoint):
        model = create_diffusers_clip_model_from_ldm(cls, checkpoint=checkpoint, **options)
    elif is_t5_in_single_file(checkpoint) and cls.__name__ == T5:
        model = create_diffusers_t5_model_from_checkpoint(cls, checkpoint=checkpoint, **options)
    else:
        model = _with_own_names(cls, checkpoint, config, dtype)
    # a file may have one of two that are tied
    if missing := {n for n, w in model.named_parameters(remove_duplicate=False) if w.is_meta}:
        model.tie_weights(missing_keys=missing)
    return model


def _with_own_names(cls: Any, checkpoint: Checkpoint, config: Path, dtype: torch.dtype) -> Any:
    """A model of transformers from a file with the names of transformers, which diffusers has no code for."""
    from accelerate import init_empty_weights
    from diffusers.loaders import single_file_utils

    with init_empty_weights():
        model = cls(cls.config_class.from_pretrained(str(config)))
    # classes have the inner model as a part or, in later versions, are it themselves
    inner = next((part for kind, part in ENCODERS.items() if kind in cls.__name__), "")
    prefix = f"{inner}." if inner and not hasattr(model, inner) else ""
    weights: Weights = {name.removeprefix(prefix): weight for name, weight in checkpoint.items()}
    kept = [*kept_in_float32(cls, dtype)]
    single_file_utils.load_model_dict_into_meta(model, weights, dtype=dtype, keep_in_fp32_modules=kept)
    return model.eval()


def _quantised(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
    """The options for a file with weights in GGML's formats."""
    if not any(hasattr(tensor, "quant_type") for tensor in checkpoint.values()):
        return {}
    from diffusers import GGUFQuantizationConfig

    return {"quantization_config": GGUFQuantizationConfig(compute_dtype=dtype)}
