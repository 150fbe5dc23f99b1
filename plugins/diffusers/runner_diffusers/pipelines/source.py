"""Classes of the installed diffusers and transformers as their source files have them; nothing is imported.

A name is looked up as Python would: in the module's own classes, else where the module imports it from. The
packages' lazy ``__init__`` files have ordinary imports for type checkers, which are followed.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DIFFUSERS = "diffusers"
FAST = ("TokenizerFast", "ImageProcessorFast")  # for these, transformers also has the class without "Fast"
COMMON = re.compile(
    r"diffusers\.(loaders|utils|models\.attention|(\w+\.)*(configuration|guider|modeling|pipeline|scheduling)_utils$)"
)
"""Modules of base classes that say nothing of one pipeline or model; they are long, and not read."""
STAND_INS = re.compile(r"\bdummy_")
"""Modules of classes that raise where a library is missing."""


@dataclass(frozen=True)
class SourceClass:
    """A class, by the module that defines it."""

    name: str
    module: str
    node: ast.ClassDef

    @property
    def bases(self) -> Iterator[tuple[str, SourceClass | None]]:
        """Names of the base classes with their source, which is None for `COMMON` and foreign ones."""
        for base in self.node.bases:
            name = ast.unparse(base)
            imported = _names(self.module).get(name)
            is_common = isinstance(imported, tuple) and COMMON.match(imported[0])
            yield name, None if is_common else find(name, self.module)


@cache
def find(name: str, module: str = DIFFUSERS) -> SourceClass | None:
    """The class that `name` stands for in a module of diffusers; None if it is none of diffusers'."""
    names = _names(module)
    found = names.get(name)
    if isinstance(found, ast.ClassDef):
        return SourceClass(name, module, found)
    if isinstance(found, tuple):
        origin, original = found
        return find(original, origin) if origin.partition(".")[0] == DIFFUSERS else None
    return None


@cache
def lineage(cls: SourceClass) -> tuple[SourceClass, ...]:
    """The class and those that it inherits from inside diffusers, in the order in which they are asked."""
    found = [cls]
    for _, base in cls.bases:
        if base is not None:
            found += [one for one in lineage(base) if one not in found]
    return tuple(found)


def ancestors(cls: SourceClass) -> set[str]:
    """Names of the class and of all that it inherits from, classes outside diffusers included."""
    return {cls.name} | {name for one in lineage(cls) for name, _ in one.bases}


@cache
def method(cls: SourceClass, name: str) -> ast.FunctionDef | None:
    """A method of the class, inherited ones too."""
    for one in lineage(cls):
        for node in one.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
    return None


def attribute(cls: SourceClass, name: str) -> object:
    """The literal value of a class attribute; None if no class of the lineage sets it to a literal."""
    return _literal([one.node for one in lineage(cls)], name)


@cache
def exported() -> tuple[str, ...]:
    """The names that diffusers and its pipelines export."""
    return tuple(sorted(_names(DIFFUSERS) | _names(f"{DIFFUSERS}.pipelines")))


@cache
def pipeline_names() -> tuple[str, ...]:
    """Names that diffusers exports for pipelines, deprecated ones too."""
    return tuple(name for name in exported() if re.search(r"Pipeline(?!.*Output)", name))


@cache
def constant(name: str, module: str) -> object:
    """The literal value of a module's constant, an imported one too; None if it is no literal."""
    for node in _statements(_tree(module)):
        target, value = _assigned(node)
        if target == name and value is not None:
            try:
                return ast.literal_eval(value)
            except ValueError:
                return None
    found = _names(module).get(name)
    return (
        constant(found[1], found[0]) if isinstance(found, tuple) and found[0].startswith(DIFFUSERS) else None
    )


@cache
def missing_packages(name: str) -> tuple[str, ...]:
    """What diffusers says that a class needs, and is not installed."""
    for file in sorted((_package(DIFFUSERS) / "utils").glob("dummy_*_objects.py")):
        found = _names(f"{DIFFUSERS}.utils.{file.stem}").get(name)
        if isinstance(found, ast.ClassDef):
            backends = _literal([found], "_backends")
            return (
                tuple(one for one in backends if find_spec(one) is None) if isinstance(backends, list) else ()
            )
    return ()


def is_pipeline(cls: SourceClass) -> bool:
    """Whether it is a DiffusionPipeline that can be called."""
    return "DiffusionPipeline" in ancestors(cls) and method(cls, "__call__") is not None


def pipeline_folder(name: str) -> str | None:
    """The module of a folder of diffusers' pipelines; None if there is no such folder."""
    if not name.isidentifier() or not (_package(DIFFUSERS) / "pipelines" / name / "__init__.py").is_file():
        return None
    return f"{DIFFUSERS}.pipelines.{name}"


@cache
def transformers_file(name: str) -> Path | None:
    """The file of transformers that exports a class; None if transformers exports no such name."""
    if not name.isidentifier() or name.startswith("_"):
        return None
    root = _package("transformers")
    return next((file for file in _candidates(root, name) if _exports(file, name)), None)


@cache
def transformers_attribute(cls: str, name: str) -> object:
    """The literal value of a class attribute; base classes in the same file are asked too."""
    file = transformers_file(cls)
    if file is None:
        return None
    classes = {
        node.name: node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.ClassDef)
    }
    asked, waiting = [], [cls]
    while waiting:
        node = classes.get(waiting.pop(0))
        if node is not None and node not in asked:
            asked.append(node)
            waiting += [ast.unparse(base) for base in node.bases]
    return _literal(asked, name)


def _literal(classes: list[ast.ClassDef], name: str) -> object:
    for cls in classes:
        for node in cls.body:
            target, value = _assigned(node)
            if target == name and value is not None:
                try:
                    return ast.literal_eval(value)
                except ValueError:
                    return None
    return None


def _candidates(root: Path, name: str) -> Iterator[Path]:
    """Files that may export a class, likely ones first: CLIPTextModel is most probably in models/clip.

    The files that others are generated from (``modular_``) list the same names.
    """
    yield root / "__init__.py"
    folders = _model_folders(root / "models")
    likely = [folder for folder in folders if name.lower().startswith(folder.name.replace("_", ""))]
    for folder in dict.fromkeys((*likely, *folders)):
        yield from sorted(file for file in folder.glob("*.py") if not file.name.startswith("modular_"))


@cache
def _model_folders(models: Path) -> tuple[Path, ...]:
    """The folders of transformers' models, long names first."""
    return tuple(sorted(models.iterdir(), key=lambda folder: (-len(folder.name), folder.name)))


def _exports(file: Path, name: str) -> bool:
    text = file.read_bytes()
    listed = text if file.name == "__init__.py" else text[max(text.rfind(b"__all__"), 0) :]
    names = [name, name.removesuffix("Fast")] if name.endswith(FAST) else [name]
    return any(re.search(rb"""["']%s["']""" % one.encode(), listed) for one in names)


@cache
def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed: pip install {name}", name=name)
    return Path(spec.origin).parent


@cache
def _names(module: str) -> dict[str, ast.ClassDef | tuple[str, str]]:
    """What names of a module stand for: its own classes, and (module, name) of what it imports."""
    found: dict[str, ast.ClassDef | tuple[str, str]] = {}
    inside = module if _file(module).name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(_tree(module)):
        if isinstance(node, ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and not STAND_INS.search(node.module or ""):
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, (_absolute(node, inside), alias.name))
        else:
            target, value = _assigned(node)
            if target and isinstance(value, ast.Name):
                found.setdefault(target, (module, value.id))
    return found


@cache
def _tree(module: str) -> ast.Module:
    """The syntax tree of a module of diffusers; an empty one if there is no such module."""
    file = _file(module)
    return ast.parse(file.read_bytes() if file.is_file() else b"")


def _file(module: str) -> Path:
    path = _package(DIFFUSERS).joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a module, those under conditions too."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.If | ast.Try):
            handlers = [line for handler in getattr(node, "handlers", ()) for line in handler.body]
            waiting[:0] = [*node.body, *node.orelse, *handlers]
        else:
            yield node


def _absolute(node: ast.ImportFrom, package: str) -> str:
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1] if node.level else []
    return ".".join((*parts, *([node.module] if node.module else [])))


def _assigned(node: ast.stmt) -> tuple[str, ast.expr | None]:
    """The one name that a statement assigns to, and the value."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id, node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id, node.value
    return "", None
