"""Where weights lie: whatever they are called, and only if the file holds them as they are."""

# mypy: disable-error-code="index,operator,union-attr"

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from towers import Layer, Tower, as_resident, as_streamed, empty, make, mapped_model, numbers, together, write

from runner.api import Component
from runner.model.files import ComponentFiles, open_component
from runner.stream import names
from runner.stream.blocks import OffloadedParameter
from runner.stream.names import locate

FLOAT32 = torch.float32


def files_of(folder: Path) -> ComponentFiles:
    return open_component(folder.parent, Component(folder.name, "towers:Tower"))


def located(folder: Path, model: torch.nn.Module) -> dict[str, bytes]:
    """What lies where each weight is said to lie."""
    found = {}
    for name, (place,) in locate(model, files_of(folder)).items():
        with place.file.path.open("rb") as file:
            file.seek(place.offset)
            found[name] = file.read(place.size)
    return found


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_every_weight_is_found_but_empty_ones(tmp_path: Path, stored: torch.dtype, shards: int) -> None:
    folder = make(tmp_path / "tower", dtype=stored, shards=shards)
    model = mapped_model(empty(), folder, FLOAT32).module
    found = located(folder, model)
    named = dict(model.named_parameters())
    assert set(found) == {name for name, weight in named.items() if weight.numel()}
    for name, data in found.items():
        assert data == named[name].detach().view(torch.uint8).numpy().tobytes()


def test_an_empty_weight_hides_none_that_lies_at_the_same_place(tmp_path: Path) -> None:
    for name in ("a", "z"):  # before it and after it
        folder = tmp_path / name
        folder.mkdir()
        save_file({name: torch.empty(0, 4), "m": torch.arange(8.0)}, folder / "model.safetensors")
        model = torch.nn.Module()
        model.m = torch.nn.Parameter(torch.empty(8))
        assert list(located(folder, mapped_model(model, folder, FLOAT32).module)) == ["m"]


def test_names_do_not_matter(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    (file,) = folder.iterdir()
    save_file({f"other.{name}": weight for name, weight in load_file(file).items()}, file)
    model = empty()
    weights = {name.removeprefix("other."): weight for name, weight in load_file(file).items()}
    model.load_state_dict(weights, assign=True)
    assert len(located(folder, model)) == len([w for w in weights.values() if w.numel()])


def test_what_the_library_made_of_a_weight_stays(tmp_path: Path) -> None:
    """Weights that are cast, transposed or written to on loading are not those of the file."""
    folder = make(tmp_path / "tower")
    model = mapped_model(empty(), folder, FLOAT32).module
    first, second = model.blocks[0], model.blocks[1]
    with torch.no_grad():
        first.up.weight = torch.nn.Parameter(first.up.weight.t())
        first.up.bias = torch.nn.Parameter(first.up.bias.double())
        second.norm.weight.mul_(2)
    lost = set(dict(model.named_parameters())) - set(located(folder, model))
    assert lost == {
        "blocks.0.up.weight",
        "blocks.0.up.bias",
        "blocks.1.norm.weight",
        *(f"blocks.{n}.nothing" for n in range(5)),
    }


def test_a_part_of_a_tensor_lies_in_the_file_too(tmp_path: Path) -> None:
    """Libraries split the fused weights of other programs by rows."""
    folder = make(tmp_path / "tower")
    model = mapped_model(empty(), folder, FLOAT32).module
    down = model.blocks[0].down
    rows = down.weight.detach()[1:]
    down.weight = torch.nn.Parameter(rows)
    assert located(folder, model)["blocks.0.down.weight"] == rows.view(torch.uint8).numpy().tobytes()


def test_weights_written_to_on_loading_compute_what_resident_ones_do(tmp_path: Path) -> None:
    class Doubled(Tower):
        def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
            super().load_state_dict(*arguments, **options)
            with torch.no_grad():
                self.blocks[2].up.weight.mul_(2)

    folder = make(tmp_path / "tower")
    tower, stream = as_streamed(folder, model=Doubled())
    (result,) = together(stream, [lambda: tower(tower(numbers(1)))])
    resident = as_resident(folder, model=Doubled())
    assert torch.equal(result, resident(resident(numbers(1))))
    plain = as_resident(folder)
    assert not torch.equal(result, plain(plain(numbers(1))))


def test_a_file_that_was_replaced_since_it_was_mapped_holds_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower", shards=2)
    resident = as_resident(folder)
    mapped = mapped_model(empty(), folder, FLOAT32)
    write(Tower(), tmp_path / "new", shards=2)
    (tmp_path / "new/model-1.safetensors").rename(folder / "model-1.safetensors")
    places = locate(mapped.module, files_of(folder))
    assert {place.file.path.name for (place,) in places.values()} == {"model-0.safetensors"}
    assert torch.equal(mapped.module(numbers(1)), resident(numbers(1)))


def test_paths_with_odd_characters_and_links(tmp_path: Path) -> None:
    folder = make(tmp_path / "a b\tö (deleted) \x85" / "tower")
    blob = (folder / "model-0.safetensors").rename(tmp_path / "a b\tö (deleted) \x85/1234 ")
    (folder / "model-0.safetensors").symlink_to(blob)
    assert len(located(folder, mapped_model(empty(), folder, FLOAT32).module)) == 29


def test_where_the_system_does_not_tell_everything_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MAPS", Path("/no/such/file"))
    folder = make(tmp_path / "tower")
    tower, stream = as_streamed(folder)
    assert not stream.active
    assert not any(isinstance(weight, OffloadedParameter) for weight in tower.parameters())
    assert torch.equal(tower(numbers(1)), as_resident(folder)(numbers(1)))
    assert stream.bytes_read == 0


def test_a_model_that_is_not_mapped_stays(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    model = Tower()
    assert locate(model, files_of(folder)) == {}
    assert locate(Layer(3), files_of(folder)) == {}
