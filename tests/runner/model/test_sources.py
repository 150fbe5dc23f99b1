"""Sources of models as they are written: none that would lead anywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.manifest.schema import ModelSource
from runner.manifest.sources import check_source

if TYPE_CHECKING:
    from project import Project

MANIFEST = """
version = 1
name = "night"
[model]
source = "{}"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
[batch]
prompts = ["a"]
"""
ACCEPTED = [
    ("owner/name", None),
    ("owner/name", "main"),
    ("owner/name", "refs/pr/7"),
    ("owner/name", "v1.0+cu12"),
    ("./model", None),
    ("~/model", None),
    ("plugin:flux/demo", None),
]
REFUSED = [
    ("owner/name", "../../outside", "is not a revision"),
    ("owner/name", "/etc/passwd", "is not a revision"),
    ("owner/name", "main\0", "is not a revision"),
    ("owner/name", "", "is not a revision"),
    ("owner/../name", None, "is not a model source"),
    ("../name/x/y", "main", "only a model on the hub can have a revision"),
    ("plugin:flux/../../etc", None, "is not a packaged model"),
    ("plugin:flux//etc", None, "is not a packaged model"),
]


@pytest.mark.parametrize(("source", "revision"), ACCEPTED)
def test_sources_that_are_right(source: str, revision: str | None) -> None:
    assert check_source(ModelSource(source=source, revision=revision), Path()) is None


@pytest.mark.parametrize(("source", "revision", "words"), REFUSED)
def test_sources_that_are_not(source: str, revision: str | None, words: str) -> None:
    assert words in (check_source(ModelSource(source=source, revision=revision), Path()) or "")


MEANT = [
    ("https://huggingface.co/owner/name", 'write "owner/name"'),
    ("huggingface.co/owner/name/tree/v1.0", 'write "owner/name" and `revision = "v1.0"`'),
    ("https://huggingface.co/owner/name/tree/main", 'write "owner/name"'),
    ("https://hf.co/owner/name/blob/main/x.safetensors", 'that is one file: write "owner/name"'),
    ("hf://owner/name", 'write "owner/name"'),
    ("https://example.com/model.zip", "models cannot be loaded from a URL: download it"),
    ("file:///srv/model", 'write "/srv/model"'),
    ("$HOME/model", "variables are not expanded"),
    (r"models\flux", 'write "./models/flux" for the one beside the manifest'),
    (r"models\gone", "folders are written with /"),
    ("flux.safetensors", "is not a model source"),
    ("models", 'write "./models" for the one beside the manifest'),
    ("models/deep/flux", 'write "./models/deep/flux"'),
]


@pytest.mark.parametrize(("source", "words"), MEANT)
def test_what_is_mistaken_for_a_source_says_what_to_write(tmp_path: Path, source: str, words: str) -> None:
    for name in ("models/flux", "models/deep/flux"):
        (tmp_path / name).mkdir(parents=True)
    assert words in (check_source(ModelSource(source=source), tmp_path) or "")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "models/flux",
            'exists beside the manifest: write "./models/flux" for the folder, or give a `revision`',
        ),
        ("./models/flux.safetensors", "flux.safetensors is damaged: it is 0 bytes long"),
        ("models/flux.safetensors", 'is written as `[model] source = "./models/flux.safetensors"`'),
        ("./models/sd.ckpt", "from_single_file"),
        ("models/flux-Q4.gguf", 'such as `transformer = "./models/flux-Q4.gguf"`'),
        ("./models/flux-Q4.gguf", "there is no file"),
        (r"C:\models\flux", "that is a Windows path"),
        ("./models/flxu", "there is no model folder"),
    ],
)
def test_a_source_that_leads_to_no_model_says_what_to_write(
    project: Project, source: str, words: str
) -> None:
    (project.folder / "models/flux").mkdir(parents=True)
    for name in ("flux.safetensors", "sd.ckpt"):
        project.write(f"models/{name}", b"")
    project.write("night.toml", MANIFEST.format(source.replace("\\", "\\\\")))
    for command in ("validate", "plan"):
        outcome = project.invoke(command, "night.toml")
        assert outcome.code == 8, outcome
        assert outcome.stderr.startswith("night.toml:4:10: "), outcome
        assert outcome.stderr.count("night.toml:4:10: ") == 1
        assert words in outcome.stderr


def test_a_hub_id_stays_one_where_a_revision_says_so(project: Project) -> None:
    (project.folder / "models/flux").mkdir(parents=True)
    project.write("night.toml", MANIFEST.format("models/flux"))
    outcome = project.invoke("validate", "night.toml", "--set", "model.revision=main")
    assert outcome.code == 0, outcome
    assert "not here yet: models/flux" in outcome.stderr


def test_offline_a_model_that_is_not_here_is_reported(project: Project) -> None:
    project.write("night.toml", MANIFEST.format("some-lab/flux"))
    project.environment["HF_HUB_OFFLINE"] = "1"
    for command in ("validate", "plan", "run", "fetch"):
        outcome = project.runner(command, "night.toml")
        assert outcome.code == 8, outcome
        assert (
            "night.toml:4:10: model 'some-lab/flux' is not (completely) on this machine, and HF_HUB_"
            in outcome.stderr
        )
        assert "or set `source` to a folder on this machine, which starts with ./, / or ~" in outcome.stderr
