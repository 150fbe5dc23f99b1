"""Secrets are in nothing that is shown, in time that grows with the text."""

from __future__ import annotations

import math
import time

import pytest

from runner.errors import ModelError
from runner.manifest.problems import Position, Problem
from runner.redact import SECRETS, redact, redact_all

TOKEN = "hf_" + "aB3" * 11
CASES = {
    f"401 for {TOKEN}, try again": "401 for ***, try again",
    "api_org_" + "x" * 30: "***",
    "hf_oauth_eyJhbGciOiJFZERTQSJ9.eyJzY29wZSI6WyJv": "***",
    "https://me:secret@mirror.example/a/b": "https://***@mirror.example/a/b",
    "https://secret@mirror.example/a": "https://***@mirror.example/a",
    "GET /file?token=abc&revision=main": "GET /file?token=***&revision=main",
    "https://cdn/x?Expires=1&Signature=a~b_&Key-Pair-Id=K": "https://cdn/x?Expires=1&Signature=***&Key-Pair-Id=***",
    "?X-Amz-Credential=AK%2F1&X-Amz-Date=2": "?X-Amz-Credential=***&X-Amz-Date=2",
    "Authorization: Bearer abc.def": "Authorization: Bearer ***",
    "{'authorization': 'Basic dTpw', 'range': 'bytes=0-1'}": "{'authorization': 'Basic ***', 'range': 'bytes=0-1'}",
}
PLAIN = [
    "runs/demo/outputs/fox-0123abcd.png",
    "a@b.example wrote to http://example.org/a@b?seed=7&steps=4",
    "the pad_token=<pad>; the bearer of news; hf_hub_download(); hf_internal",
    "0123456789abcdef" * 4,
]


@pytest.mark.parametrize("text", CASES)
def test_secrets_are_known_by_their_form(text: str) -> None:
    assert redact(text) == CASES[text]


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_secrets_of_the_environment_have_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "nobody knows me")
    assert redact_all({"error": ["x nobody knows me y"], "n": 1}) == {"error": ["x *** y"], "n": 1}
    monkeypatch.setenv("HF_TOKEN", "a")  # too short to be one
    assert redact("a cat") == "a cat"


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HUGGINGFACE_HUB_TOKEN",
        "HUGGINGFACEHUB_API_TOKEN",
        "HF_API_TOKEN",
    ],
)
def test_each_variable_that_holds_a_token(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, " eightbit ")
    assert redact("an eightbit computer") == "an *** computer"
    assert name in SECRETS
    monkeypatch.setenv(name, "sevenbi")
    assert redact("a sevenbi computer") == "a sevenbi computer"


def test_errors_tell_none() -> None:
    assert str(ModelError(f"refused with {TOKEN}")) == "refused with ***"
    assert Problem(Position("x.toml"), f"not {TOKEN}").as_dict()["message"] == "not ***"


@pytest.mark.parametrize(
    "piece", ["://", "&", "&token", "&a=b", "hf_", "authorization", "authorization ", "a:/@"]
)
def test_a_long_text_takes_no_time_to_speak_of(piece: str) -> None:
    """Twice the text takes about twice as long; with a pattern that looks back, four times, and hours here."""

    def seconds(count: int) -> float:
        text = piece * count + "\n"
        best = math.inf
        for _ in range(3):
            began = time.process_time()
            redact(text)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(64_000) < 16 * seconds(16_000) + 0.01
