"""Manifests that are wrong, each in one place, and what is said of it."""

from __future__ import annotations

GOOD = """\
version = 1
name = "toy"
[budget]
device = "cpu"
[[stage]]
name = "make"
uses = "toy.make"
[stage.with]
steps = 2
[[stage]]
name = "write"
uses = "toy.write"
[batch]
prompts = ["one"]
"""

# what is replaced in GOOD, by what, and the place and the words that the message must have
TABLES = {
    "syntax": ("steps = 2", "steps = ", "9:9", "invalid value"),
    "unclosed string": ('name = "toy"', 'name = "toy', "2:12", "illegal character"),
    "key twice": ("steps = 2", "steps = 2\nsteps = 3", "10:10", "overwrite"),
    "version": ("version = 1", "version = 2", "1:11", "'version': must be 1, not 2"),
    "version true": ("version = 1", "version = true", "1:11", "must be 1"),
    "no version": ("version = 1\n", "", "", "'version' is missing"),
    "no name": ('name = "toy"\n', "", "", "'name' is missing"),
    "name with slash": ('name = "toy"', 'name = "../toy"', "2:8", "'name'"),
    "name of dots": ('name = "toy"', 'name = ".."', "2:8", "'name'"),
    "unknown table": ("[budget]", "[bugdet]", "3:2", "unknown key 'bugdet'; did you mean 'budget'?"),
    "unknown key": (
        'device = "cpu"',
        'vrm = "8GiB"',
        "4:1",
        "unknown key 'vrm'; did you mean 'vram'?",
    ),
    "bare size": ('device = "cpu"', "vram = 8", "4:8", 'such as "8GiB"'),
    "unknown unit": ('device = "cpu"', 'ram = "8 gigs"', "4:7", 'such as "8GiB"'),
    "no memory at all": ('device = "cpu"', 'ram = "0GiB"', "4:7", "at least 1 byte"),
    "device": (
        'device = "cpu"',
        'device = "gpu"',
        "4:10",
        "'device' must be auto, cpu, cuda[:N], xpu[:N], mps or sim[:N], not 'gpu'",
    ),
    "a map's tier": (
        'uses = "toy.make"',
        'uses = "toy.make"\ndevice_map = { "net" = "gpu0" }',
        "8:24",
        "'net' is placed on 'gpu0'; there are: cpu, disk, cuda[:N], xpu[:N], mps, sim[:N], N",
    ),
    "threads": ('device = "cpu"', "threads = 0", "4:11", "greater than or equal to 1"),
    "two stages of a name": ('name = "write"', 'name = "make"', "11:8", "two stages are named 'make'"),
    "stage name": ('name = "write"', 'name = "wri/te"', "11:8", "'name'"),
    "dtype": (
        'uses = "toy.make"',
        'uses = "toy.make"\ndtype = "bfloat61"',
        "8:9",
        "did you mean 'bfloat16'?",
    ),
    "placement": (
        'uses = "toy.make"',
        'uses = "toy.make"\nplacement = "gpu"',
        "8:13",
        "'resident'",
    ),
    "offload on the cpu": (
        'uses = "toy.make"',
        'uses = "toy.make"\nplacement = "model-offload"',
        "8:13",
        "needs an accelerator",
    ),
    "timeout": (
        'uses = "toy.make"',
        'uses = "toy.make"\ntimeout = "soon"',
        "8:11",
        "write a time",
    ),
    "parameter of the plugin": (
        "steps = 2",
        "stesp = 2",
        "9:1",
        "toy.make has no parameter 'stesp'; did you mean 'steps'?",
    ),
    "parameter's type": (
        "steps = 2",
        'steps = "2"',
        "9:9",
        "'steps' must be a whole number, not '2'",
    ),
    "parameter's bound": ("steps = 2", "steps = 0", "9:9", "greater than or equal to 1, not 0"),
    "boolean for number": ("steps = 2", "steps = true", "9:9", "must be a whole number, not true"),
    "input renamed in vain": (
        'uses = "toy.write"',
        'uses = "toy.write"\n[stage.from]\nnumbers = "nubmers"',
        "14:11",
        "did you mean 'numbers'?",
    ),
    "no such input": (
        'uses = "toy.write"',
        'uses = "toy.write"\n[stage.from]\nnumber = "numbers"',
        "14:1",
        "has no input 'number'",
    ),
    "text for tensor": (
        'uses = "toy.write"',
        'uses = "toy.write"\n[stage.from]\nnumbers = "caption"',
        "14:11",
        "leaves 'caption' as a text, and stage 'write' needs a tensor",
    ),
    "order": (
        'name = "make"\nuses = "toy.make"',
        'name = "first"\nuses = "toy.write"',
        "5:3",
        "stage 'first' needs 'numbers', and no earlier stage leaves",
    ),
    "empty batch": ('prompts = ["one"]', "prompts = []", "13:2", "there are no items"),
    "empty prompt": ('prompts = ["one"]', 'prompts = ["one", "  "]', "14:19", "the prompt is empty"),
    "prompt's type": ('prompts = ["one"]', 'prompts = ["one", 2]', "14:19", "must be a string, not 2"),
    "negative seed": ('prompts = ["one"]', 'prompts = ["one"]\nseeds = [-1]', "15:10", "-1"),
    "seed too large": (
        'prompts = ["one"]',
        'prompts = ["one"]\nseeds = [18446744073709551616]',
        "15:10",
        "less than 18446744073709551616",
    ),
    "missing item file": ('prompts = ["one"]', 'file = "no.jsonl"', "14:8", "there is no file"),
    "item file of another kind": (
        'prompts = ["one"]',
        'file = "toy.toml"',
        "",
        ".txt, .csv and .jsonl files only",
    ),
    "unknown item key": (
        'prompts = ["one"]',
        '[[item]]\nprompt = "a"\nstep = 3',
        "16:8",
        "unknown key 'step': no stage of this manifest has it; did you mean 'steps'?",
    ),
    "item without its prompt": (
        'prompts = ["one"]',
        "[[item]]\nseed = 3",
        "14:3",
        "'prompt' is missing: toy.make needs it",
    ),
    "item's bound": (
        'prompts = ["one"]',
        '[[item]]\nprompt = "a"\nsteps = 0',
        "16:9",
        "greater than or equal to 1, not 0",
    ),
    "hostile id": (
        'prompts = ["one"]',
        '[[item]]\nid = "../../etc/passwd"\nprompt = "a"',
        "15:6",
        "cannot be a file name",
    ),
    "id of dots": (
        'prompts = ["one"]',
        '[[item]]\nid = ".."\nprompt = "a"',
        "15:6",
        "cannot be a file name",
    ),
    "long id": (
        'prompts = ["one"]',
        f'[[item]]\nid = "{"a" * 101}"\nprompt = "a"',
        "15:6",
        "cannot be a file name",
    ),
    "id twice": (
        'prompts = ["one"]',
        '[[item]]\nid = "a"\nprompt = "a"\n[[item]]\nid = "a"\nprompt = "b"',
        "18:6",
        "two items have the id 'a' (the other is at 15:6)",
    ),
    "no model source": (
        "[budget]",
        '[model]\nsource = "just a name"\n[budget]',
        "4:10",
        "is not a model source",
    ),
    "model path escapes its plugin": (
        "[budget]",
        '[model]\nsource = "plugin:flux/../secret"\n[budget]',
        "4:10",
        "is not a packaged model",
    ),
    "revision of a folder": (
        "[budget]",
        '[model]\nsource = "./here"\nrevision = "main"\n[budget]',
        "4:10",
        "only a model on the hub can have a revision",
    ),
}
