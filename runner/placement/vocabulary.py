"""Checks that a tokenizer has a vocabulary, and that it is its encoder's.

transformers loads a tokenizer without any vocabulary, and without an error, if the file is missing.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from runner.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runner.api import Component

MIN_VOCABULARY = 0.75  # share of the encoder's embeddings, which have padding, and tokens that are no text
EMPTY = 1  # words: sentencepiece always has its space mark
MAX_WITHOUT_MERGE = 0.25  # share of the words that need no merge: some vocabularies have added words
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
ANY_VOCABULARY = (".model", ".tiktoken", "tokenizer.json", "vocab.txt", "vocab.json")
REMEDY = "fetch the tokenizer's files of the same model again"


def is_tokenizer(cls: Any) -> bool:
    """Whether a class has the interface of transformers' tokenizers."""
    return hasattr(cls, "vocab_files_names") and hasattr(cls, "get_vocab")


def check_vocabulary(tokenizer: Any, component: Component, folder: Path, embeddings: int | None) -> None:
    """Refuse a tokenizer that has no vocabulary, or another model's.

    ``embeddings`` is the number of token ids that the encoder takes, None if that is not known.

    Raises:
        ModelError: the vocabulary is empty or does not fit.

    """
    tokens = tokenizer.get_vocab()
    words = tokens.keys() - {*tokenizer.all_special_tokens}
    where = f"component '{component.name}': the tokenizer in {folder / component.path}"
    if tokenizer.vocab_files_names and len(words) <= EMPTY:
        raise ModelError(
            f"{where} has no vocabulary, only {len(tokens)} tokens of its own; {files_hint(tokenizer)}"
        )
    if embeddings is None:
        return
    if tokenizer.vocab_size > embeddings or len(tokens) < MIN_VOCABULARY * embeddings:
        raise ModelError(
            f"{where} has {len(tokens)} tokens, and its encoder takes {embeddings}: it is the tokenizer of "
            f"another model, or not whole; {REMEDY}"
        )


def check_merges(tokenizer: Any, component: Component, folder: Path) -> None:
    """Refuse a byte-pair vocabulary with words that no merge produces: they are never found in a text.

    Raises:
        ModelError: its merges were cut or left out.

    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str())["model"] if backend is not None else {}
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix"):
        return
    suffix = model.get("end_of_word_suffix") or ""
    made = {"".join(pair) if isinstance(pair, list) else pair.replace(" ", "", 1) for pair in model["merges"]}
    words = [word for word in model["vocab"] if len(word.removesuffix(suffix)) > 1 and not _BYTE.match(word)]
    words = [word for word in words if word not in tokenizer.get_added_vocab()]
    lost = sum(word not in made for word in words)
    if lost > MAX_WITHOUT_MERGE * len(words):
        raise ModelError(
            f"component '{component.name}': the tokenizer in {folder / component.path} has no merges for "
            f"{lost} of its {len(words)} words, so that texts fall into letters; {files_hint(tokenizer)}"
        )


def check_files(cls: Any, component: Component, folder: Path, names: Iterable[str]) -> None:
    """Check by their names that a tokenizer's files include a vocabulary.

    Raises:
        ModelError: none of the files that its class reads exists.

    """
    there = [name.rpartition("/")[2] for name in names]
    expected = {*cls.vocab_files_names.values()}
    if expected and not any(name in expected or name.endswith(ANY_VOCABULARY) for name in there):
        raise ModelError(
            f"component '{component.name}': the tokenizer in {folder / component.path} has no vocabulary; "
            f"{files_hint(cls)}"
        )


def files_hint(tokenizer: Any) -> str:
    """The files that a tokenizer's class reads, and the remedy if one of them is wrong."""
    names = sorted({*tokenizer.vocab_files_names.values()})
    return f"its class reads {', '.join(names)}: {REMEDY}"
