"""The API for plugins, and all of ``runner`` that they import.

A plugin is a module named in the entry-point group ``runner``. It sets ``RUNNER_API = 1``, imports
nothing heavy, and implements hooks of :mod:`runner.hookspecs` with :data:`hookimpl`. Heavy code is named
by dotted strings (``"package.module:object"``) and imported in the worker process alone.
"""

from __future__ import annotations

import pluggy

from runner.api.checks import Facts, Problem
from runner.api.executors import AGENT, Channel, Executor, Places
from runner.api.files import InputFile, InputFolder
from runner.api.memory import Activations, Measure, Sizes
from runner.api.model import ModelFacts, UnsupportedModelError
from runner.api.runs import ItemResult, Run, StageResult, Summary
from runner.api.stage import DTYPE_KINDS, Bundle, Component, File, Output, Stage, Tensor, Text
from runner.api.templates import Demo, Recommended, Template
from runner.api.worker import Bundled, Context, Item, Saved
from runner.api.workspaces import Convolution, convolution_workspace

API_VERSION = 1
"""The ``RUNNER_API`` that this version of runner supports."""

hookimpl = pluggy.HookimplMarker("runner")
"""Marks a function of the plugin's module as the implementation of the hook with the same name."""

__all__ = [
    "AGENT",
    "API_VERSION",
    "DTYPE_KINDS",
    "Activations",
    "Bundle",
    "Bundled",
    "Channel",
    "Component",
    "Context",
    "Convolution",
    "Demo",
    "Executor",
    "Facts",
    "File",
    "InputFile",
    "InputFolder",
    "Item",
    "ItemResult",
    "Measure",
    "ModelFacts",
    "Output",
    "Places",
    "Problem",
    "Recommended",
    "Run",
    "Saved",
    "Sizes",
    "Stage",
    "StageResult",
    "Summary",
    "Template",
    "Tensor",
    "Text",
    "UnsupportedModelError",
    "convolution_workspace",
    "hookimpl",
]
