"""``runner run`` with several manifests, and which manifests arguments name."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import toy_plugin
from waiting import wait_until

from runner.cli.several_manifests import expand
from runner.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project


def named(text: str, name: str) -> str:
    return text.replace('name = "toy"', f'name = "{name}"')


def test_what_is_wrong_is_reported_first_and_the_others_run(toy: Project) -> None:
    toy.write("night/a.toml", named(toy_plugin.MANIFEST, "a"))
    toy.write("night/b.toml", named(toy_plugin.MANIFEST, "b") + "sedes = [1]\n")
    toy.write("night/c.toml", named(toy_plugin.BEHAVING.format("raise"), "c"))
    outcome = toy.runner("run", "night/c.toml", "night/*.toml", "./night/a.toml", "--json")
    assert outcome.code == 3, outcome
    places = [outcome.stderr.index(words) for words in ("unknown key 'sedes'", "b.toml is left out", "== ")]
    assert places == sorted(places)
    assert [line for line in outcome.stderr.splitlines() if line.startswith("==")] == [
        "== night/c.toml",
        "== night/a.toml",
    ]
    (summary,) = outcome.of("summary")
    assert outcome.events[-1] == summary
    assert summary["exit_code"] == 3
    c, a, b = summary["manifests"]
    assert all(turn["seconds"] > 0 for turn in (c, a))
    assert (a["run"], a["done"], a["failed"], a["cached"], a["exit_code"], a["reason"]) == (
        "a",
        2,
        0,
        0,
        0,
        None,
    )
    assert (c["done"], c["failed"], c["exit_code"]) == (1, 1, 1)
    assert c["reason"] == "make item: ValueError: item cannot be made"
    assert (b["run"], b["done"], b["exit_code"]) == (None, 0, 3)
    table = outcome.stderr.splitlines()[-4:]
    assert [line.split()[0] for line in table] == ["manifest", *(turn["manifest"] for turn in (c, a, b))]
    assert table[1].split()[1:4] == ["1", "1", "0"]
    assert "make item: ValueError" in table[1]
    assert "unknown key 'sedes'" in table[3]


def test_an_interruption_shows_what_had_not_had_its_turn(toy: Project) -> None:
    toy.write("a.toml", named(toy_plugin.BEHAVING.format("wait"), "a"))
    toy.write("b.toml", named(toy_plugin.MANIFEST, "b"))
    process = toy.start("run", "a.toml", "b.toml", "--json")
    flag = toy.folder / "flags" / "item"
    wait_until(lambda: flag.exists() or process.poll() is not None, 60, "the item has begun")
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    a, b = json.loads(stdout.splitlines()[-1])["manifests"]
    assert (a["exit_code"], b["exit_code"]) == (130, None)
    assert "did not have its turn" in stderr.splitlines()[-1]
    assert not (toy.folder / "runs/b").exists()


def test_a_pattern_that_matches_nothing_is_named(toy: Project) -> None:
    outcome = toy.invoke("run", "toy.toml", "nigth/*.toml")
    assert outcome.code == 2, outcome
    assert "no manifest matches 'nigth/*.toml'" in outcome.stderr
    assert not (toy.folder / "runs").exists()


def test_a_file_may_be_named_like_a_pattern(toy: Project) -> None:
    toy.write("[a]*.toml", toy_plugin.MANIFEST)
    toy.write("b.toml", toy_plugin.MANIFEST)
    outcome = toy.invoke("run", "[a]*.toml", "--dry-run", "--json")
    assert outcome.code == 0, outcome


def test_what_does_not_fit_is_reported_first_and_may_have_nothing_to_do(ran: Project) -> None:
    outcome = ran.runner("run", "toy.toml", "numbers.toml", "--set", "budget.ram=1MiB")
    assert outcome.code == 0, outcome
    first = outcome.stderr.index("== toy.toml")
    assert outcome.stderr.index("does not fit") < outcome.stderr.index("toy.toml would stop at that") < first


def test_plans_of_several_go_on_after_one_that_is_wrong(toy: Project) -> None:
    toy.write("broken.toml", "version = 2\n")
    outcome = toy.invoke("run", "broken.toml", "toy.toml", "--dry-run", "--json")
    assert outcome.code == 3, outcome
    assert json.loads(outcome.stdout)["name"] == "toy"


def test_a_bug_in_one_does_not_keep_the_others_from_running(
    ran: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import runner.cli.several_manifests as several

    def run_pipeline(pipeline: Any, *arguments: Any) -> Any:
        return 1 / 0 if pipeline.manifest.table.name == "toy" else real(pipeline, *arguments)

    real = several.run_pipeline
    monkeypatch.setattr(several, "run_pipeline", run_pipeline)
    outcome = ran.invoke("run", "toy.toml", "numbers.toml", "--json")
    assert outcome.code == 70, outcome
    assert "ZeroDivisionError" in outcome.stderr
    assert [m["exit_code"] for m in outcome.of("summary")[0]["manifests"]] == [70, 0]


def test_manifests_of_one_name_get_a_warning_that_they_share(toy: Project) -> None:
    for name in ("a", "b"):
        toy.write(f"{name}.toml", toy_plugin.MANIFEST)
    outcome = toy.runner("run", "a.toml", "b.toml")
    assert outcome.code == 0, outcome
    assert "warning: a.toml and b.toml have one name, and so one run directory: 'toy'" in outcome.stderr


def test_patterns_in_the_order_of_names_and_each_manifest_once(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", "c.txt", "deep/d.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    assert expand([tmp_path / "*.toml"]) == [a, b]
    assert expand([b, tmp_path / "*.toml", tmp_path / "deep/../a.toml"]) == [b, a]
    assert expand([tmp_path / "**/*.toml"]) == [a, b, tmp_path / "deep/d.toml"]
    # one that is not there is reported when it is read
    assert expand([tmp_path / "e.toml"]) == [tmp_path / "e.toml"]
    with pytest.raises(UsageError, match="no manifest matches"):
        expand([a, tmp_path / "x*.toml"])


def test_a_name_that_looks_like_a_pattern_is_a_name_where_it_is_one(tmp_path: Path) -> None:
    odd = tmp_path / "a[1].toml"
    odd.touch()
    assert expand([odd]) == [odd]
