"""Imported by the process that the simulation's processes are forked from: libraries, none of the engine."""

import gc

import torch_sim  # noqa: F401
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel  # noqa: F401
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast  # noqa: F401

gc.freeze()  # a collection in a fork neither scans the libraries nor copies their pages
