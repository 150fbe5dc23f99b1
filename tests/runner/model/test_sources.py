"""Sources of models as they are written: none that would lead anywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.manifest.schema import ModelSource
from runner.model.spelling import check_source

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
    ("owner/name", "../../outside", "is no revision"),
    ("owner/name", "/etc/passwd", "is no revision"),
    ("owner/name", "main\0", "is no revision"),
    ("owner/name", "", "is no revision"),
    ("owner/../name", None, "is no model source"),
    ("../name/x/y", "main", "only a model on the hub has a revision"),
    ("plugin:flux/../../etc", None, "is no packaged model"),
    ("plugin:flux//etc", None, "is no packaged model"),
]


@pytest.mark.parametrize(("source", "revision"), ACCEPTED)
def test_sources_that_are_right(source: str, revision: str | None) -> None:
    assert check_source(ModelSource(source=source, revision=revision), Path()) is None


@pytest.mark.parametrize(("source", "revision", "words"), REFUSED)
def test_sources_that_are_not(source: str, revision: str | None, words: str) -> None:
    assert words in (check_source(ModelSource(source=source, revision=revision), Path()) or "")
