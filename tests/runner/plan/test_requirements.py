"""What a stage requires whatever its placement: the greediest of its items, and the process around them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hand_built import ITEM, MIB, PLUGIN, card, component, pipeline, requirements

from runner.api import Activations, Sizes
from runner.machine import malloc
from runner.model.checks.adapters import AdapterReport
from runner.plan.candidates import candidates
from runner.plan.item_activations import with_adapters
from runner.plan.requirements import requirements_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project

    from runner.pipeline.binding import Pipeline


def test_mixed_items_count_with_the_most_of_everything_and_the_fewest_tokens(project: Project) -> None:
    items = ("peak = 70\nleaves = 1", "suspended = 9\ntokens = 10", "passes = 30\ntokens = 7", "leaves = 8")
    opened = pipeline(project, items=items)
    need = requirements_of(opened, opened.stages[0], [component()], "cpu")
    assert need.item == Activations(70 * MIB, 9 * MIB, tokens=7, passes=30, output_bytes=8 * MIB)
    assert (need.items, need.has_formula, need.on_cpu, need.dtype) == (4, True, True, "float32")


def test_one_item_that_does_not_say_what_it_holds_waiting_speaks_for_all(project: Project) -> None:
    opened = pipeline(project, items=("suspended = 9", "", "peak = 60"))
    known = requirements_of(opened, opened.stages[0], [component()], "cpu")
    assert known.suspended == 9 * MIB
    assert known.retaining is not None
    opened = pipeline(project, items=("suspended = 9", "suspended = 99", "peak = 60"))
    unknown = requirements_of(opened, opened.stages[0], [component()], "cpu")
    assert unknown.item.suspended is None
    assert unknown.suspended == 60 * MIB
    assert unknown.retaining is None


def test_it_asks_what_would_be_if_the_manifest_said_so(project: Project) -> None:
    opened = pipeline(project)
    stage = opened.stages[0]
    halved = requirements_of(opened, stage, [component()], "cpu", dtype="bfloat16")
    assert (halved.dtype, halved.item.peak, halved.weights) == ("bfloat16", 25 * MIB, 22 * MIB)
    assert requirements_of(opened, stage, [component()], "cpu", changed={"peak": 20}).item.peak == 20 * MIB
    # what the plugin's model refuses changes nothing
    assert requirements_of(opened, stage, [component()], "cpu", changed={"peak": "no"}).item.peak == 50 * MIB


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pipeline], list[Any]]:
    """The parameters that the plugin's formula is called with, for all items of a pipeline."""

    def calls(opened: Pipeline) -> list[Any]:
        found: list[Any] = []
        formula = sys.modules["formula"].memory

        def memory(params: Any, sizes: Sizes) -> Any:
            found.append(params)
            return formula(params, sizes)

        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["formula"], "memory", memory)
            need = requirements_of(opened, opened.stages[0], [component()], "cpu")
        assert {item: activations.peak for item, activations in need.each.items()} == {
            item.id: item.params[0].canonical["peak"] * MIB for item in opened.items
        }
        return found

    return calls


def test_equal_parameters_are_validated_once(project: Project, seen: Callable[[Pipeline], list[Any]]) -> None:
    opened = pipeline(project, items=[f"peak = {70 + n % 2}" for n in range(1000)])
    assert [params.peak for params in seen(opened)] == [70, 71]


def test_the_formula_gets_each_of_different_parameters(
    project: Project, seen: Callable[[Pipeline], list[Any]]
) -> None:
    opened = pipeline(project, items=[f'prompt = "{n}"\npeak = {n % 3}' for n in range(9)])
    assert [params.prompt for params in seen(opened)] == list("012345678")


def test_parameters_that_are_equal_in_python_alone_are_different(project: Project) -> None:
    lines = ("extra = 1", "extra = 1.5", "extra = true", 'extra = "1"', "extra = 1")
    source = PLUGIN.replace("    peak: int", "    extra: bool | int | float | str = 0\n    peak: int")
    source = source.replace("params.peak * MIB", "len(str(params.extra)) * MIB")
    opened = pipeline(project, items=lines, plugin=source)
    need = requirements_of(opened, opened.stages[0], [component()], "cpu")
    assert [activations.peak // MIB for activations in need.each.values()] == [1, 3, 4, 1, 1]


def test_a_formula_sees_the_parameters_of_earlier_stages(project: Project) -> None:
    following = (
        'memory="formula:memory"),\n        Stage("formula.next", "formula:start", inputs=(Text("said"),), '
        'outputs=(Text("more"),), memory="formula:following"'
    )
    source = PLUGIN.replace('memory="formula:memory"', following)
    source += "\n\ndef following(params, sizes):\n    return sizes.upstream['said'].peak\n"
    stage = "[[stage]]\nname = 'next'\nuses = 'formula.next'"
    opened = pipeline(project, stage, items=("peak = 5", "peak = 6", "peak = 5"), plugin=source)
    need = requirements_of(opened, opened.stages[1], [], "cpu")
    assert [activations.peak for activations in need.each.values()] == [5, 6, 5]


def test_components_without_weights_are_none(project: Project) -> None:
    opened = pipeline(project)
    tokenizer = replace(component(), tensors={})
    config = component(config_only=True)
    assert requirements_of(opened, opened.stages[0], [tokenizer, config], "cpu").shapes == ()


@pytest.fixture(autouse=True)
def with_peft_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what diffusers imports where it is installed."""
    monkeypatch.setattr("runner.plan.requirements.is_installed", lambda name: name == "peft")


@pytest.mark.parametrize(
    ("cls", "on_cpu", "process"),
    [
        ("torch:Net", True, 160 + 20),
        ("torch:Net", False, 160 + 20 + 700),
        ("diffusers:Net", True, 160 + 20 + 134),
        ("transformers.models:Net", True, 160 + 20 + 134),
        ("diffusers:Net", False, 160 + 20 + 134 + 700),
    ],
)
def test_the_process_before_it_loads_anything(cls: str, on_cpu: bool, process: int) -> None:
    assert requirements(component(cls=cls), on_cpu=on_cpu).process == process * MIB


def test_libraries_count_what_they_import_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = component(cls="diffusers:Net")
    adapted = replace(shapes, adapters=(AdapterReport({"net": {"first": (MIB, 4)}}),))
    assert requirements(adapted).process == (160 + 20 + 134 + 12) * MIB
    monkeypatch.setattr("runner.plan.requirements.is_installed", lambda _: False)
    assert requirements(shapes).process == (160 + 20 + 125) * MIB
    monkeypatch.setattr("runner.plan.requirements.is_installed", lambda _: True)
    assert requirements(shapes).process == (160 + 20 + 125 + 9 + 38) * MIB


def test_adapters_stay_on_the_device_and_compute_beside_the_layers() -> None:
    """1 MiB numbers in float32, and twice what a layer returns for each of an item's 10 tokens."""
    shapes = component(cls="diffusers:Net")
    adapted = replace(shapes, adapters=(AdapterReport({"net": {"layers.0.to": (MIB, 256)}}),))
    assert adapted.loaded_bytes("float32") - shapes.loaded_bytes("float32") == 4 * MIB
    for placement in ("stream", "device-map", "resident", "sequential-offload"):
        placed = [
            {
                option.placement: option
                for option in candidates(requirements(one, on_cpu=False), card(1, 1000), None)
            }
            for one in (shapes, adapted)
        ]
        plain, more = (options[placement].components[0] for options in placed)
        assert more.resident - plain.resident == 4 * MIB
        assert more.moved == plain.moved
    found = with_adapters(Activations(100, tokens=10, small=50), [adapted], Sizes("float32", "cpu"))
    assert (found.peak, found.small) == (100 + 2 * 10 * 256 * 4, 50 + 2 * 10 * 256 * 4)


def test_libraries_of_other_stages_are_in_the_same_fork_server() -> None:
    assert requirements(beside=frozenset({"diffusers"})).process == (160 + 20 + 134) * MIB


def test_what_works_beside_the_weights() -> None:
    assert requirements().working == 50 * MIB
    assert requirements(on_cpu=False).working == (560 + 72 + 53) * MIB  # 50, and 6 percent
    kept = requirements(retains_freed_memory=True)
    assert kept.working == 100 * MIB  # as much again
    assert kept.retained == 50 * MIB
    assert requirements().retained == 0
    large = replace(ITEM, peak=900 * MIB)
    assert requirements(item=large, retains_freed_memory=True).retained == malloc.MOST == 224 * MIB


def test_what_waits_is_kept_around_too() -> None:
    assert requirements().suspended == 6 * MIB
    assert requirements(retains_freed_memory=True).suspended == (6 + 12) * MIB  # twice what it holds
    large = replace(ITEM, suspended=100 * MIB)
    assert (
        requirements(item=large, retains_freed_memory=True).suspended == (100 + 32) * MIB
    )  # of 16 MiB at most


def test_weights_are_as_they_are_computed_with() -> None:
    net, other = component(), component("other", dtype="BF16", blocks=1)
    assert requirements(net, other).weights == (44 + 28) * MIB
    assert requirements(net, other, dtype="bfloat16").weights == (22 + 14) * MIB


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("suspended = -1", "suspended = -1048576, which is no size"),
        ("leaves = -1", "output_bytes = -1048576, which is no size"),
        ("tokens = -1", "tokens = -1, which is no size"),
        ("passes = -2", "passes = -2, which is no size"),
    ],
)
def test_a_formula_that_returns_no_size_is_refused(project: Project, line: str, words: str) -> None:
    opened: Any = pipeline(project, items=("", line))
    with pytest.raises(Exception, match=words) as refused:
        requirements_of(opened, opened.stages[0], [component()], "cpu")
    assert "of formula.run fails for item 'i1'" in str(refused.value)
