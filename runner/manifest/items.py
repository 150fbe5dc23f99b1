"""The batch: items from prompts, files and ``[[item]]`` tables, times the seeds, each with an id."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runner.manifest.explain import shown
from runner.manifest.item_files import RawItem, always, read_items
from runner.manifest.params import whole_numbers
from runner.manifest.patterns import FILE_NAME, NAME_LIMIT
from runner.manifest.problems import ManifestError, Position, Problems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.manifest.load import Manifest

SLUG_LIMIT = 60
SLUG_SOURCE = 1000  # characters of a prompt that make a slug: normal forms take the square of the time
ITEMS_LIMIT = 1_000_000


@dataclass(frozen=True)
class BatchItem:
    """One unit of the batch: what it sets, and where each of its fields was written."""

    id: str
    fields: Mapping[str, Any]
    where: Callable[[str | None], Position]
    text_only: bool = False
    where_named: Callable[[str], Position] | None = None
    """Where a field's name is written, if that is not beside its value."""

    def where_key(self, field: str) -> Position:
        return (self.where_named or self.where)(field)


def expand(manifest: Manifest, problems: Problems) -> list[BatchItem]:
    """Every item of the manifest, in its order, with unique ids.

    What is wrong goes to ``problems``: files that cannot be read, ids that clash or are no file names, an
    empty batch. The items that are left are still worth a look.
    """
    before = len(problems.found)
    raw = _gather(manifest, problems)
    if not raw and len(problems.found) == before and not (manifest.problems or manifest.unknown):
        _tell_none(manifest, problems)
    raw = [item for item in raw if _check_text(item, problems)]
    if not _check_count(raw, manifest, problems):
        return []
    seeded = [one for item in raw for one in _times_seeds(item, manifest.table.batch.seeds, problems)]
    items = _name(seeded)
    _check_ids(items, problems)
    return items


def _tell_none(manifest: Manifest, problems: Problems) -> None:
    if manifest.table.batch.file is not None:
        problems.add(manifest.where("batch", "file"), "there are no items in this file")
    else:
        at = manifest.where("batch", key=True)
        problems.add(at, "there are no items: give the [batch] prompts or a file, or add an [[item]]")


def _gather(manifest: Manifest, problems: Problems) -> list[RawItem]:
    batch = manifest.table.batch
    raw = []
    for n, prompt in enumerate(batch.prompts):
        place = manifest.where("batch", "prompts", n)
        if manifest.prompts:
            place = Position(f"--prompt {prompt!r}", is_override=True)
        if not prompt.strip():
            problems.add(place, "the prompt is empty")
        raw.append(RawItem({"prompt": prompt}, always(place)))
    if batch.file is not None:
        # these two raise nothing: no home, too long a name, half a character are just no file
        path = manifest.folder / os.path.expanduser(batch.file)  # noqa: PTH111
        if os.path.isfile(path):  # noqa: PTH113
            try:
                raw += read_items(path, problems)
            except ManifestError as error:
                problems.found += error.problems
        else:
            problems.add(manifest.where("batch", "file"), f"there is no file {path}")
    for n, fields in enumerate(manifest.table.item):
        raw.append(RawItem(fields, _table_finder(manifest, n)))
    return [replace(item, fields=whole_numbers(item.fields)) for item in raw]


def _check_count(raw: list[RawItem], manifest: Manifest, problems: Problems) -> bool:
    """Whether a run can hold them: prompts and seeds that are few can be many together."""
    count = len(raw) * max(1, len(manifest.table.batch.seeds))
    if count > ITEMS_LIMIT:
        words = f"{count} items are too many for one manifest, which takes {ITEMS_LIMIT}: split it"
        problems.add(manifest.where("batch", key=True), words)
    return count <= ITEMS_LIMIT


def _check_text(item: RawItem, problems: Problems) -> bool:
    """Whether all of it is text: JSON can write halves of characters, which no file can hold."""
    halves = [
        name
        for name, value in item.fields.items()
        if not _is_text(name) or (isinstance(value, str) and not _is_text(value))
    ]
    for name in halves:
        problems.add(item.where(name), "holds half a character (a lone surrogate), which is no text")
    return not halves


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


def _times_seeds(item: RawItem, seeds: list[int], problems: Problems) -> list[RawItem]:
    """One item a seed; an item that names its own seed is left as it is."""
    given = item.fields.get("id")
    if given is not None and not isinstance(given, str):
        problems.add(item.where("id"), f"'id' must be a string: write {_as_id(given)}, not {shown(given)}")
    elif given is not None and not _is_file_name(given):
        rule = "1 to 100 of A-Z a-z 0-9 . _ - and more than dots"
        problems.add(item.where("id"), f"the id {given!r} cannot be a file name: use {rule}")
    if "seed" in item.fields or not seeds:
        return [item]
    if isinstance(given, str) and len(seeds) > 1:
        if len(f"{given}-{max(seeds)}") > NAME_LIMIT:
            problems.add(item.where("id"), f"with its seed the id is longer than {NAME_LIMIT} characters")
        return [_with(item, seed=seed, id=f"{given}-{seed}") for seed in seeds]
    return [_with(item, seed=seed) for seed in seeds]


def _as_id(given: Any) -> str:
    """What a value that is no string would be as an id."""
    text = str(given)
    return f'"{text}"' if _is_file_name(text) else 'a name, such as "fox"'


def _is_file_name(given: str) -> bool:
    return len(given) <= NAME_LIMIT and bool(re.fullmatch(FILE_NAME, given))


def _with(item: RawItem, **fields: Any) -> RawItem:
    return replace(item, fields={**item.fields, **fields})


def _name(raw: list[RawItem]) -> list[BatchItem]:
    """Ids that do not depend on the order: a slug and the seed, a hash too where slugs meet."""
    slugs = [_slug(item.fields) for item in raw]
    count = Counter(slugs)
    taken = {str(item.fields["id"]) for item in raw if "id" in item.fields}
    tried: Counter[str] = Counter()
    items = []
    for item, slug in zip(raw, slugs, strict=True):
        fields = {name: value for name, value in item.fields.items() if name != "id"}
        name = item.fields.get("id")
        if name is None:
            name = slug if count[slug] == 1 else f"{slug}-{_short_hash(fields)}"
            # the same item twice over is told apart by number
            name = _free(name, taken, tried)
            taken.add(name)
        items.append(BatchItem(str(name), fields, item.where, item.text_only, item.where_named))
    return items


def _free(name: str, taken: set[str], tried: Counter[str]) -> str:
    """``name``, or with the next number that nothing has; ``tried`` counts how far each name has come."""
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
    seed = re.sub(r"\.0+$", "", str(fields.get("seed", "")))  # a table of strings may have "7.0"
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
