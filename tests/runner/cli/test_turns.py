"""Which manifests arguments name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runner.cli.run_several import expand
from runner.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_patterns_in_the_order_of_names_and_each_manifest_once(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", "c.txt", "deep/d.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    assert expand([tmp_path / "*.toml"]) == [a, b]
    assert expand([b, tmp_path / "*.toml", tmp_path / "deep/../a.toml"]) == [b, a]
    assert expand([tmp_path / "**/*.toml"]) == [a, b, tmp_path / "deep/d.toml"]
    # one that is not there is told of when it is read
    assert expand([tmp_path / "e.toml"]) == [tmp_path / "e.toml"]
    with pytest.raises(UsageError, match="no manifest matches"):
        expand([a, tmp_path / "x*.toml"])


def test_a_name_that_looks_like_a_pattern_is_a_name_where_it_is_one(tmp_path: Path) -> None:
    odd = tmp_path / "a[1].toml"
    odd.touch()
    assert expand([odd]) == [odd]
