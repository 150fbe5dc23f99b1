"""Kill anything at any time: the next run ends with the same bytes, and no more work than was in flight."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from chaos.batch import VARIANTS, Batch, check_end, check_work
from chaos.kills import KILLS, SEED, Ordeal, draw_orders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.conftest import Undisturbed

SHARES = [(variant, half) for variant in VARIANTS for half in (0, 1)] if KILLS else [("streamed", 0)]
AT_MOMENTS, ANYTIME = (10, 5) if KILLS else (4, 1)  # kills of one batch


@pytest.mark.parametrize(("variant", "half"), SHARES)
def test_kills(
    tmp_path: Path,
    undisturbed: Undisturbed,
    variant: str,
    half: int,
    record_property: Callable[[str, object], None],
) -> None:
    done = number = 0
    while not number or done * len(SHARES) < KILLS:
        ordeal = one_ordeal(tmp_path / f"{number}", undisturbed, variant, f"{SEED}-{variant}-{half}-{number}")
        done, number = done + ordeal.kills, number + 1
    record_property("kills", done)


def one_ordeal(folder: Path, undisturbed: Undisturbed, variant: str, seed: str) -> Ordeal:
    """One batch to its end."""
    folder.mkdir()
    batch = Batch(folder, variant)
    groups = batch.groups()
    ordeal = Ordeal(batch, Random(seed))
    batch.order(draw_orders(undisturbed.moments, ordeal.chance, AT_MOMENTS))
    try:
        ordeal.run(ANYTIME)
    finally:
        print("\n".join((f"{variant}, seed {seed}", *ordeal.log)))
    check_end(batch, undisturbed.made)
    check_work(batch, groups)
    return ordeal
