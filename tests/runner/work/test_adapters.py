"""Adapters (LoRA) in runs: the stages that they change, the hub, records, and files that are not what they seem."""

from __future__ import annotations

import json
import math
import pickle
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import DEMO
from hub import COMMIT, Hub, Repository
from lora_files import FLUX, TEXT, write_kohya_flux, write_lora
from parts import WITHOUT, started
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from project import Project

STYLE = '[[lora]]\nsource = "./style.safetensors"\nweight = 0.8\n'
ANNA = '[[lora]]\nsource = "lab/loras:people/anna.safetensors"\n'
LINE = len(WITHOUT.strip().splitlines()) + 2
"""Of the source of the first adapter, where it follows `WITHOUT`."""
TRANSFORMER = {"transformer": FLUX}


@pytest.fixture
def styled(project: Project) -> Project:
    write_lora(project.folder / "style.safetensors", DEMO, TRANSFORMER)
    project.write("plain.toml", WITHOUT)
    project.write("styled.toml", WITHOUT + STYLE)
    return project


@pytest.fixture
def hub(styled: Project) -> Iterator[Hub]:
    files: dict[str, dict[str, tuple[str, ...]]] = {
        "people/anna.safetensors": {"transformer": FLUX, "text_encoder": TEXT},
        "other.safetensors": {"vae": ("to_q", "to_k")},
    }
    repository = Repository({name: _lora(styled.folder, parts) for name, parts in files.items()})
    repository.files["large.safetensors"] = b"not asked for"
    with Hub({"lab/loras": repository}).served() as served:
        styled.environment |= {"HF_ENDPOINT": served.url, "HF_HUB_DISABLE_XET": "1"}
        styled.write("styled.toml", WITHOUT + STYLE + ANNA)
        yield served


def _lora(folder: Path, parts: dict[str, tuple[str, ...]]) -> bytes:
    return write_lora(folder / "made.safetensors", DEMO, parts, seed=5).read_bytes()


def test_only_stages_that_an_adapter_changes_run_again(styled: Project) -> None:
    assert started(styled.runner("run", "plain.toml", "--json")) == ["encode", "diffuse", "decode"]
    changed = ["diffuse", "decode"]
    assert started(styled.runner("run", "styled.toml", "--json")) == changed
    assert started(styled.runner("run", "styled.toml", "--json")) == []

    # the file's place is in no key, its content, name and weight are
    (styled.folder / "style.safetensors").rename(styled.folder / "moved.safetensors")
    moved = STYLE.replace("style", "moved") + 'name = "style"\n'
    styled.write("styled.toml", WITHOUT + moved)
    assert started(styled.runner("run", "styled.toml", "--json")) == []
    weight = ["--set", "item.circle.lora_weights.style=0.5"]
    shown = styled.runner("explain", "styled.toml", *weight)
    assert "lora style: weight 0.8 of" in shown.stdout, shown
    assert started(styled.runner("run", "styled.toml", "--json", *weight)) == changed
    write_lora(styled.folder / "moved.safetensors", DEMO, TRANSFORMER, seed=9)
    assert started(styled.runner("run", "styled.toml", "--json")) == changed
    shown = styled.invoke("runs", "show", "parts")
    assert "LoRA: style (0.8)" in shown.stdout, shown
    outputs = styled.outputs("parts")
    assert len(outputs) == len(set(outputs.values())) == 4

    # each from its own record, with the file that is there now
    made = [f"runs/parts/outputs/{name}" for name in outputs]
    again = styled.runner("reproduce", *made, "--json")
    results = {json.loads(line)["exit_code"] for line in again.stdout.splitlines() if "exit_code" in line}
    assert results == {0, 8}, again  # two need the file as it was


def test_a_picture_is_made_again_with_an_adapter_that_was_moved(styled: Project) -> None:
    assert styled.runner("run", "styled.toml").code == 0
    (name,) = styled.outputs("parts")
    (styled.folder / "style.safetensors").rename(styled.folder / "moved.safetensors")
    again = ("reproduce", f"runs/parts/outputs/{name}")
    outcome = styled.runner(*again)
    assert outcome.code == 8, outcome
    assert "a LoRA --set lora.NAME.source=FILE" in outcome.stderr
    outcome = styled.runner(*again, "--set", "lora.style.source=./moved.safetensors")
    assert outcome.code == 0, outcome
    assert "made again, bit for bit" in outcome.stderr


def test_one_file_may_be_there_under_two_names(styled: Project) -> None:
    styled.write("styled.toml", WITHOUT + STYLE + STYLE + 'name = "again"\n')
    planned = styled.runner("plan", "styled.toml", "--json")
    assert [lora["name"] for lora in json.loads(planned.stdout)["loras"]] == ["style", "again"]
    assert started(styled.runner("run", "styled.toml", "--json")) == ["encode", "diffuse", "decode"]
    swapped = ("--set", "lora.again.weight=0.5")
    assert started(styled.runner("run", "styled.toml", "--json", *swapped)) == ["diffuse", "decode"]
    assert len({*styled.outputs("parts").values()}) == 2


def test_one_on_the_hub_is_fetched_alone_and_recorded(styled: Project, hub: Hub) -> None:
    planned = styled.runner("plan", "styled.toml", "--json")
    assert planned.code == 0, planned
    plan = json.loads(planned.stdout)
    changes = {lora["name"]: sorted(lora["changes"]) for lora in plan["loras"]}
    assert changes == {"style": ["transformer"], "anna": ["text_encoder", "transformer"]}
    assert all(wanted is not None for _, wanted in hub.downloads)  # its header alone
    fetched = styled.runner("fetch", "styled.toml", "--json")
    assert fetched.code == 0, fetched
    (reported,) = [event for event in fetched.of("fetched") if event["source"] == "lab/loras"]
    assert (reported["file"], reported["commit"]) == ("people/anna.safetensors", COMMIT)
    assert {name for name, wanted in hub.downloads if wanted is None} == {"people/anna.safetensors"}

    styled.environment["HF_HUB_OFFLINE"] = "1"
    assert started(styled.runner("run", "styled.toml", "--json")) == ["encode", "diffuse", "decode"]
    (name,) = styled.outputs("parts")
    again = styled.runner("reproduce", f"runs/parts/outputs/{name}")
    assert again.code == 0, again
    assert "made again, bit for bit" in again.stderr


@pytest.mark.usefixtures("hub")
def test_one_for_another_model_is_refused_before_it_is_downloaded(styled: Project, hub: Hub) -> None:
    for file, words in [
        ("other.safetensors", "the LoRA 'other': "),
        ("gone.safetensors", "has no file gone.safetensors"),
        ("people/ana.safetensors", "has no file ana.safetensors; did you mean 'anna.safetensors'?"),
    ]:
        text = ANNA.replace("people/anna.safetensors", file)
        styled.write("other.toml", WITHOUT + text)
        for command in ("plan", "run"):
            outcome = styled.runner(command, "other.toml")
            assert outcome.code == 8, outcome
            assert f"other.toml:{LINE}:10: " in outcome.stderr, outcome
            assert words in outcome.stderr, outcome
    assert all(wanted is not None for _, wanted in hub.downloads)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


BROKEN = {
    "a pickle": (pickle.dumps(Harmful()), "is damaged"),
    "nothing": (b"", "is damaged"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
    "a long header": (b"\xff" * 16, "is damaged"),
    "no tensors": (b"\x02\0\0\0\0\0\0\0{}", "it holds no tensors"),
}


@pytest.mark.parametrize("case", [*BROKEN, "cut off"])
def test_a_broken_file_is_refused_and_nothing_in_it_runs(styled: Project, case: str) -> None:
    path = styled.folder / "style.safetensors"
    data, words = BROKEN.get(case, (path.read_bytes()[:-1], "cut off"))
    path.write_bytes(data)
    outcome = styled.invoke("plan", "styled.toml")
    assert outcome.code == 8, outcome
    assert words in outcome.stderr, outcome
    assert f"styled.toml:{LINE}:10: " in outcome.stderr
    assert "executed" not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (torch.tensor(-2.0), "is -2, and not positive"),
        (torch.tensor(-2.0, dtype=torch.bfloat16), "is -2, and not positive"),
        (torch.tensor(-2), "is -2, and not positive"),
        (torch.tensor(0.0), "is 0, and not positive"),
        (torch.tensor(math.nan, dtype=torch.float16), "is nan, and not positive"),
        (torch.tensor(math.inf), "is inf, and not positive"),
        (torch.ones(2), "should be one number, and is 2"),
        (torch.tensor(1.0, dtype=torch.float8_e4m3fn), "as F8_E4M3, which is not read here"),
    ],
)
def test_an_alpha_that_is_no_positive_number_is_refused(
    styled: Project, alpha: torch.Tensor, words: str
) -> None:
    """Only its file has it, not its header."""
    path = write_kohya_flux(styled.folder / "style.safetensors", DEMO)
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(".alpha"))
    save_file({**tensors, name: alpha}, path)
    outcome = styled.invoke("plan", "styled.toml")
    assert outcome.code == 8, outcome
    assert f"styled.toml:{LINE}:10: the LoRA 'style'" in outcome.stderr
    assert f"'{name}'" in outcome.stderr
    assert words in outcome.stderr


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_alphas_are_read_in_the_dtype_that_they_are_stored_in(styled: Project, dtype: str) -> None:
    path = write_kohya_flux(styled.folder / "style.safetensors", DEMO)
    tensors = load_file(path)
    ones = {name: torch.ones((), dtype=getattr(torch, dtype)) for name in tensors if name.endswith(".alpha")}
    save_file({**tensors, **ones}, path)
    assert styled.invoke("plan", "styled.toml").code == 0
