"""Declarations of components."""

from __future__ import annotations

from typing import Any

from runner.api import Component


def test_lists_are_taken_as_tuples_so_that_components_are_hashable() -> None:
    listed: Any = ["layers"]
    assert {Component("net", "a:B", blocks=listed), Component("net", "a:B", blocks=("layers",))} == {
        Component("net", "a:B", blocks=("layers",))
    }


def test_the_folder_is_by_default_the_name() -> None:
    assert (Component("net", "a:B").path, Component("net", "a:B", folder="unet").path) == ("net", "unet")
