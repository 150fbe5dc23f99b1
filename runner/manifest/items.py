"""Expands a batch: items from prompts, files and ``[[item]]`` tables, times the seeds, with ids."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.manifest.batch_item import BatchItem, at
from runner.manifest.explain import shown
from runner.manifest.item_files import read_items
from runner.manifest.params import whole_numbers
from runner.manifest.problems import ManifestError, Position, Problems
from runner.manifest.schema import FILE_NAME, NAME_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.manifest.load import Manifest

SLUG_LIMIT = 60
SLUG_SOURCE = 1000  # characters of a prompt used for its slug: Unicode normalisation is quadratic
ITEMS_LIMIT = 1_000_000


def expand(manifest: Manifest, problems: Problems) -> list[BatchItem]:
    """Every item of the manifest, in its order, with unique ids.

    Errors are added to ``problems``: unreadable files, ids that clash or cannot be file names, an empty
    batch. The items without errors are returned, so that they can be checked further.
    """
    before = len(problems.found)
    unnamed = _gather(manifest, problems)
    if not unnamed and len(problems.found) == before and not (manifest.problems or manifest.unknown):
        _report_empty_batch(manifest, problems)
    unnamed = [item for item in unnamed if _check_text(item, problems)]
    if not _check_count(unnamed, manifest, problems):
        return []
    seeded = [one for item in unnamed for one in _times_seeds(item, manifest.table.batch.seeds, problems)]
    items = _assign_ids(seeded)
    _check_ids(items, problems)
    return items


def _report_empty_batch(manifest: Manifest, problems: Problems) -> None:
    if manifest.table.batch.file is not None:
        problems.add(manifest.where("batch", "file"), "there are no items in this file")
    else:
        at = manifest.where("batch", key=True)
        problems.add(at, "there are no items: give the [batch] prompts or a file, or add an [[item]]")


def _gather(manifest: Manifest, problems: Problems) -> list[BatchItem]:
    """Items from all sources of the manifest, without ids."""
    batch = manifest.table.batch
    found = []
    for n, prompt in enumerate(batch.prompts):
        place = manifest.where("batch", "prompts", n)
        if manifest.prompts:
            place = Position(f"--prompt {prompt!r}", is_override=True)
        if not prompt.strip():
            problems.add(place, "the prompt is empty")
        found.append(BatchItem({"prompt": prompt}, at(place)))
    if batch.file is not None:
        # unlike pathlib, these two never raise: not for a missing home, a long name or a lone surrogate
        path = manifest.folder / os.path.expanduser(batch.file)  # noqa: PTH111
        if os.path.isfile(path):  # noqa: PTH113
            try:
                found += [replace(item, folder=path.parent) for item in read_items(path, problems)]
            except ManifestError as error:
                problems.found += error.problems
        else:
            problems.add(manifest.where("batch", "file"), f"there is no file {path}")
    for n, fields in enumerate(manifest.table.item):
        found.append(BatchItem(fields, _table_finder(manifest, n)))
    return [replace(item, fields=whole_numbers(item.fields)) for item in found]


def _check_count(unseeded: list[BatchItem], manifest: Manifest, problems: Problems) -> bool:
    """Whether items times seeds stay within ITEMS_LIMIT; checked before they are multiplied."""
    count = len(unseeded) * max(1, len(manifest.table.batch.seeds))
    if count > ITEMS_LIMIT:
        words = f"{count} items are too many for one manifest, which takes {ITEMS_LIMIT}: split it"
        problems.add(manifest.where("batch", key=True), words)
    return count <= ITEMS_LIMIT


def _check_text(item: BatchItem, problems: Problems) -> bool:
    """Whether all strings can be encoded: JSON can contain lone surrogates, which UTF-8 cannot."""
    faulty = [
        name
        for name, value in item.fields.items()
        if not _is_text(name) or (isinstance(value, str) and not _is_text(value))
    ]
    for name in faulty:
        problems.add(item.where(name), "contains a lone surrogate (half a character), which is not text")
    return not faulty


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _table_finder(manifest: Manifest, n: int) -> Callable[[str | None], Position]:
    def where(field: str | None) -> Position:
        if field is None:
            return manifest.where("item", n, key=True)
        return manifest.where("item", n, field)

    return where


def _times_seeds(item: BatchItem, seeds: list[int], problems: Problems) -> list[BatchItem]:
    """One item per seed; an item with a ``seed`` of its own is returned unchanged."""
    given = item.fields.get("id")
    if given is not None and not isinstance(given, str):
        problems.add(item.where("id"), f"'id' must be a string: write {_as_id(given)}, not {shown(given)}")
    elif given is not None and not _is_file_name(given):
        rule = "1 to 100 of A-Z a-z 0-9 . _ - and not dots alone"
        problems.add(item.where("id"), f"the id {given!r} cannot be a file name: use {rule}")
    if "seed" in item.fields or not seeds:
        return [item]
    if isinstance(given, str) and len(seeds) > 1:
        if len(f"{given}-{max(seeds)}") > NAME_LIMIT:
            problems.add(item.where("id"), f"with its seed the id is longer than {NAME_LIMIT} characters")
        return [_with(item, seed=seed, id=f"{given}-{seed}") for seed in seeds]
    return [_with(item, seed=seed) for seed in seeds]


def _as_id(given: Any) -> str:
    """The TOML string to suggest for an id that was given as another type."""
    text = str(given)
    return f'"{text}"' if _is_file_name(text) else 'a name, such as "fox"'


def _is_file_name(given: str) -> bool:
    return len(given) <= NAME_LIMIT and bool(re.fullmatch(FILE_NAME, given))


def _with(item: BatchItem, **fields: Any) -> BatchItem:
    return replace(item, fields={**item.fields, **fields})


def _assign_ids(unnamed: list[BatchItem]) -> list[BatchItem]:
    """The items with ids independent of their order: slug and seed, and a hash where slugs are equal."""
    slugs = [_slug(item.fields) for item in unnamed]
    count = Counter(slugs)
    taken = {str(item.fields["id"]) for item in unnamed if "id" in item.fields}
    tried: Counter[str] = Counter()
    items = []
    for item, slug in zip(unnamed, slugs, strict=True):
        fields = {name: value for name, value in item.fields.items() if name != "id"}
        name = item.fields.get("id")
        if name is None:
            name = slug if count[slug] == 1 else f"{slug}-{_short_hash(fields)}"
            name = _free(name, taken, tried)  # equal items get numbers
            taken.add(name)
        items.append(replace(item, id=str(name), fields=fields))
    return items


def _free(name: str, taken: set[str], tried: Counter[str]) -> str:
    """``name``, or ``name-N`` with the first free N; ``tried`` holds the last N tried for each name."""
    free = name if not tried[name] else f"{name}-{tried[name] + 1}"
    while free in taken:
        tried[name] += 1
        free = f"{name}-{tried[name] + 1}"
    return free


def _slug(fields: Mapping[str, Any]) -> str:
    prompt = str(fields.get("prompt", ""))[:SLUG_SOURCE]
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG_LIMIT].strip("-")
    if not slug:
        slug = f"item-{_short_hash({k: v for k, v in fields.items() if k not in ('id', 'seed')})}"
    seed = re.sub(r"\.0+$", "", str(fields.get("seed", "")))  # CSV files may have "7.0"
    return f"{slug}-{seed}"[:NAME_LIMIT] if "seed" in fields else slug


def _short_hash(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _check_ids(items: list[BatchItem], problems: Problems) -> None:
    first: dict[str, BatchItem] = {}
    for item in items:
        if item.id in first:
            earlier = first[item.id].where("id")
            where = f" (the other is at {earlier.line}:{earlier.column})" if earlier.line else ""
            problems.add(item.where("id"), f"two items have the id '{item.id}'{where}")
        first.setdefault(item.id, item)
