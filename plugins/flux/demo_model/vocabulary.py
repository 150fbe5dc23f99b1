"""Builds the two tokenizers from the captions' words: byte pairs for CLIP, pieces for T5."""

from __future__ import annotations

import io
import json
import math
import re
import string
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pieces_format
from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer, T5TokenizerFast

from .captions import OTHER_WORDS, write_caption
from .scenes import draw_scene
from .training import Place, generator_of

if TYPE_CHECKING:
    from pathlib import Path

CHARACTERS = string.ascii_lowercase + string.digits + ".,!?'\"-:;()"
CLIP_LENGTH, T5_LENGTH = 77, 512  # tokens at most, like the published model's


def train(place: Place) -> None:
    """Write both tokenizers to the work folder, in transformers' format."""
    words = _words(place.seed)
    _write_clip(words, place.result("tokenizer"))
    _write_t5(words, place.result("tokenizer_2"))


def load(place: Place) -> tuple[CLIPTokenizer, T5TokenizerFast]:
    """CLIP's tokenizer and T5's."""
    clip = CLIPTokenizer.from_pretrained(place.result("tokenizer"))
    return clip, T5TokenizerFast.from_pretrained(place.result("tokenizer_2"))


def _words(seed: int) -> Counter[str]:
    """The frequency of each word in captions; OTHER_WORDS count once."""
    rng = generator_of(seed, "vocabulary", 0)
    texts = [write_caption(draw_scene(rng), rng).text.lower() for _ in range(4000)]
    return Counter(re.findall(r"[a-z]+", " ".join([*texts, *OTHER_WORDS])))


def _write_clip(words: Counter[str], folder: Path) -> None:
    """Byte pairs until every word is one token; all else falls back to bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _byte_pairs(words)
    # CLIP's order of ids: bytes, bytes that end a word, merges, the two marks.
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet), *(a + b for a, b in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    end = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CLIP_LENGTH, "do_lower_case": True}
    settings |= {"add_prefix_space": False, "errors": "replace"}
    _write_settings(folder, settings, end | {"bos_token": "<|startoftext|>"})


def _byte_pairs(words: Counter[str]) -> list[tuple[str, str]]:
    """Merge the most frequent pair repeatedly; of equal ones the last in the alphabet.

    The library's trainer breaks ties at random, so that its result is not reproducible.
    """
    spelled = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in spelled.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        first, second = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append((first, second))
        for symbols in spelled.values():
            for at in range(len(symbols) - 2, -1, -1):
                if symbols[at : at + 2] == [first, second]:
                    symbols[at : at + 2] = [first + second]


def _write_t5(words: Counter[str], folder: Path) -> None:
    """One piece a word (a unigram model would split them), single characters for all else."""
    folder.mkdir(parents=True, exist_ok=True)
    # Lower case by sentencepiece's own rules: transformers drops a Lowercase normalizer of tokenizer.json.
    rules = folder / "lowercase.tsv"
    rules.write_text("".join(f"{ord(c):x}\t{ord(c.lower()):x}\n" for c in string.ascii_uppercase))
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(words)), model_writer=buffer, model_type="unigram",
        vocab_size=60, hard_vocab_limit=False, required_chars=CHARACTERS, normalization_rule_tsv=str(rules),
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", minloglevel=2,
    )  # fmt: skip
    rules.unlink()
    model = pieces_format.ModelProto()
    model.ParseFromString(buffer.getvalue())
    del model.pieces[3:]
    model.normalizer_spec.normalization_rule_tsv = ""  # only a path of this machine
    for piece, score in _scored_pieces(words):
        model.pieces.append(pieces_format.ModelProto.SentencePiece(piece=piece, score=score))
    model.trainer_spec.vocab_size = len(model.pieces)
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    marks = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": T5_LENGTH, "extra_ids": 0}
    _write_settings(folder, settings | {"additional_special_tokens": [], "legacy": True}, marks)
    fast = T5TokenizerFast.from_pretrained(folder)
    fast.backend_tokenizer.save(str(folder / "tokenizer.json"))


def _scored_pieces(words: Counter[str]) -> list[tuple[str, float]]:
    """Log probabilities of words, and of characters, so low that a whole word always wins."""
    total = words.total()
    known = [("\u2581" + word, max(-9.0, math.log(count / total))) for word, count in words.most_common()]
    return [*known, ("\u2581", -10.0), *((c, -3.0 if c in ".," else -11.0) for c in CHARACTERS)]


def _write_settings(folder: Path, settings: dict[str, Any], marks: dict[str, str]) -> None:
    settings = settings | marks | {"clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(marks, indent=2) + "\n")
