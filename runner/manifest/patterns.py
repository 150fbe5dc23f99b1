"""What names and devices look like, for pydantic and in words."""

from __future__ import annotations

NAME_LIMIT = 100
NAME = r"^[A-Za-z0-9_-]{1,100}$"
FILE_NAME = r"^\.*[A-Za-z0-9_-][A-Za-z0-9._-]*$"  # at most NAME_LIMIT long; never dots alone
DEVICE = r"^(auto|cpu|cuda|cuda:\d+)$"
VARIANT = r"^[A-Za-z0-9_-]+$"

PATTERNS = {
    NAME: "1 to 100 of A-Z a-z 0-9 _ -",
    FILE_NAME: "a file name of A-Z a-z 0-9 . _ -",
    VARIANT: 'a part of file names, such as "fp16"',
    DEVICE: "auto, cpu, cuda or cuda:N",
}
