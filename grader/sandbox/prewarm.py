"""What a student's code will need, loaded once in the warm process so that no child pays for it or must read files."""

from __future__ import annotations

import contextlib
import importlib
import tempfile

import numpy as np
import torch

COMMON_MODULES = (
    *("abc", "array", "base64", "bisect", "calendar", "cmath", "collections", "collections.abc", "contextlib", "copy"),
    *("csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "errno", "fractions", "functools", "glob"),
    *("hashlib", "heapq", "html", "html.entities", "inspect", "io", "itertools", "json", "keyword", "linecache"),
    *("math", "mimetypes", "numbers", "operator", "os.path", "pathlib", "pickle", "pprint", "queue", "random", "re"),
    *("regex", "shutil", "statistics", "string", "struct", "tempfile", "textwrap", "threading", "tiktoken", "time"),
    *("timeit", "traceback", "types", "typing", "typing_extensions", "unicodedata", "urllib.parse", "uuid", "warnings"),
    *("weakref", "zlib", "torch.utils.data", "torch.utils.flop_counter", "torch.utils._python_dispatch"),
)


def prewarm() -> None:
    """Import the usual modules and run each kind of operation once.

    The first optimiser step imports some 800 modules (about a second); the first threaded operation reads
    /proc/cpuinfo.
    """
    for name in COMMON_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    torch.set_num_threads(1)
    _train_once()
    x = torch.randn(4, 4)
    torch.einsum("ij,jk->ik", x, x)
    torch.linalg.svd(x)
    torch.fft.rfft(x)
    torch.multinomial(torch.ones(4), 2, generator=torch.Generator().manual_seed(0))
    torch.nn.functional.conv1d(x[None], x[:, :, None])
    torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None])
    np.random.default_rng(0).normal(size=3)
    np.linalg.svd(np.ones((3, 3)))
    with tempfile.TemporaryFile() as file:
        torch.save({"x": x}, file)
        file.seek(0)
        torch.load(file)


def _train_once() -> None:
    layer = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 5))
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        optimizer = kind(layer.parameters(), lr=0.1)
        loss = torch.nn.functional.cross_entropy(layer(torch.tensor([0, 1, 2])), torch.tensor([1, 2, 3]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
