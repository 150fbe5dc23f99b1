"""Types of parameters that are files: pydantic's, without importing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from pydantic import ValidationInfo
    from pydantic_core import CoreSchema

INPUT_FILES = "runner_input_files"
"""Key in pydantic's validation context of the engine's function that finds and checks a file."""


@dataclass(frozen=True)
class InputPath:
    """Marks a parameter as a file: see :data:`InputFile`. ``folder``: a folder is taken as well."""

    folder: bool = False

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        """How pydantic validates it."""
        from pydantic_core import core_schema

        return core_schema.with_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        """The JSON Schema of it."""
        return {"type": "string", "format": "path" if self.folder else "file-path", "minLength": 1}

    def _validate(self, value: Any, info: ValidationInfo) -> Path:
        from pydantic_core import PydanticKnownError

        if not isinstance(value, str | Path):
            raise PydanticKnownError("string_type")
        find = (info.context or {}).get(INPUT_FILES)
        found: Path = find(str(value), info.field_name, folder=self.folder) if find else Path(value)
        return found


InputFile = Annotated[Path, InputPath()]
"""A parameter that is a file: ``image: InputFile``, ``InputFile | None`` or ``list[InputFile]``.

Manifests and items name it by a path relative to the file that names it; ``~`` is the home. The file must be
there and not empty before the run starts. In the key it stands for its content. A stage gets an absolute
:class:`pathlib.Path`.
"""
InputFolder = Annotated[Path, InputPath(folder=True)]
"""Like :data:`InputFile`, but it may be a folder: then the names and contents of all files in it count."""
