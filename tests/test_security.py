"""What strangers wrote, a model folder, a manifest, is read and never run; and no secret is reported."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from checkpoints import DEMO
from toy_plugin import BEHAVING, TOY

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

MANIFEST = """
version = 1
name = "hostile"
[model]
source = "./model"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
[[item]]
id = "a"
prompt = "$(touch {marker}) `touch {marker}`"
"""
TOKEN, OTHER = "hf_" + "aB3" * 12, "a-token-of-no-known-form"


class Touch:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.call, (["touch", str(self.marker)],)


def test_code_in_a_model_folder_is_not_run(project: Project) -> None:
    marker = project.folder / "marker"
    model = shutil.copytree(DEMO, project.folder / "model")
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        config = next((model / part).glob("*config.json"))
        classes = {
            "AutoModel": "evil.Evil",
            "AutoTokenizer": ["evil.Evil", "evil.Evil"],
            "AutoConfig": "evil.Evil",
        }
        table = {**json.loads(config.read_bytes()), "auto_map": classes}
        config.write_text(json.dumps(table))
        for name in ("evil.py", "__init__.py", "sitecustomize.py", "modeling_clip.py"):
            (model / part / name).write_text(f"open({str(marker)!r}, 'w')\n")
        if part.startswith("text"):  # beside safetensors; alone they are refused
            for name in ("pytorch_model.bin", "model.pt", "model.pkl"):
                (model / part / name).write_bytes(pickle.dumps(Touch(marker)))
    project.write("hostile.toml", MANIFEST.format(marker=marker))

    outcome = project.runner("run", "hostile.toml")

    assert outcome.code == 0, outcome
    assert not marker.exists()
    pickle.loads((model / "text_encoder/model.pkl").read_bytes())
    assert marker.exists()  # it would have been


def test_a_token_is_nowhere(toy: Project) -> None:
    leaks = (
        f"raise ValueError('https://me:pw-of-mine@host/x?token=word {TOKEN} {OTHER}' + str(dict(os.environ)))"
    )
    toy.plugin(
        "toy",
        TOY.replace('if how == "raise":', f'if how == "leak":\n        {leaks}\n    if how == "raise":'),
    )
    toy.write("toy.toml", BEHAVING.format("leak"))
    toy.environment |= {"HF_TOKEN": OTHER, "HUGGING_FACE_HUB_TOKEN": TOKEN}

    outcome = toy.runner("run", "toy.toml", "--json")

    assert outcome.code == 1, outcome
    error = next(e["error"] for e in outcome.of("item_finished") if e["status"] == "failed")
    assert error.startswith("ValueError: https://***@host/x?token=*** *** ***")
    files = [path for path in (toy.folder / "runs").rglob("*") if path.is_file()]
    reported = [outcome.stdout, outcome.stderr, *(path.read_bytes().decode("latin-1") for path in files)]
    for secret in (TOKEN, "pw-of-mine", "token=word"):
        assert not any(secret in text for text in reported)
    assert not any("'HF_TOKEN'" in text for text in reported)  # of the worker's environment
