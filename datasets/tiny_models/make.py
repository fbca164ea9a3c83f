"""Three small trained models, with the program that trained them and a plain forward pass that shows everything inside.

`python datasets/tiny_models/make.py` trains them again (seeded, one thread, a few seconds), writes the files, and fails
if they do not behave as card.toml says: trained weights are not the same to the last bit on every machine.

A model is a pair of plain things. `config` is a dict of numbers: V ids, D width, H heads, L blocks, d_mlp (0: no MLP),
T_max positions, eps. `params` is a dict of tensors by the names of a state_dict. A block adds attention(norm(x)) to x,
then mlp(norm(x)); norms are layer norms, all linear maps have biases, the MLP has a GELU.
"""

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

HERE = Path(__file__).parent

Config = dict[str, float]
Params = dict[str, Tensor]

REPEATS = {"V": 20, "D": 32, "H": 2, "T_max": 30, "d_mlp": 0, "eps": 1e-5}
CONFIGS: dict[str, Config] = {
    "induction": REPEATS | {"L": 2},
    "one_layer": REPEATS | {"L": 1},
    "names": {"V": 14, "D": 32, "H": 2, "L": 2, "T_max": 9, "d_mlp": 64, "eps": 1e-5},
}
"""The three models."""
PERIODS = (5, 15)
"""The shortest and the longest period of a repeated sequence."""
PEOPLE = 8
"""Ids 0 to 7 are people; then come the words start, and, met, then, gave, to."""
START, AND, MET, THEN, GAVE, TO = range(PEOPLE, PEOPLE + 6)


# -- what the models were trained on


def repeats(seed: int, number: int) -> tuple[Tensor, Tensor]:
    """Draw sequences that repeat: ids (number, 30) and the period of each (number,), both int64.

    Each has a period of its own between 5 and 15. Its first `period` ids are different ones of the 20; afterwards id t
    is id t - period, so ids from there on can be predicted, and those before cannot.
    """
    random = np.random.RandomState([3, seed % 2**32, seed // 2**32])
    first = np.argsort(random.random_sample((number, 20)), axis=1)  # permutations
    period = random.randint(PERIODS[0], PERIODS[1] + 1, size=(number, 1))
    ids = np.take_along_axis(first, np.arange(30)[None] % period, axis=1)
    return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(period[:, 0].astype(np.int64))


def introductions(seed: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw sentences "start A and B met then A gave to" without their last word, which is B.

    Returns:
        ids (number, 9), the right answer (number,), the one who gave and cannot be it (number,); all int64.
    """
    random = np.random.RandomState([4, seed % 2**32, seed // 2**32])
    pairs = np.stack([random.permutation(PEOPLE)[:2] for _ in range(number)])
    giver = random.randint(0, 2, size=number)
    who = pairs[np.arange(number), giver]
    word = lambda w: np.full(number, w)  # noqa: E731
    columns = [word(START), pairs[:, 0], word(AND), pairs[:, 1], word(MET), word(THEN), who, word(GAVE), word(TO)]
    answer = pairs[np.arange(number), 1 - giver]
    return tuple(torch.from_numpy(x.astype(np.int64)) for x in (np.stack(columns, 1), answer, who))


# -- a model


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """The name and the shape of every parameter, in the order of a state_dict."""
    V, D, M = int(config["V"]), int(config["D"]), int(config["d_mlp"])
    found = {"tokens.weight": (V, D), "positions.weight": (int(config["T_max"]), D)}
    for layer in range(int(config["L"])):
        at = f"blocks.{layer}."
        found |= {at + "norm1.weight": (D,), at + "norm1.bias": (D,)}
        for name in ("W_q", "W_k", "W_v", "W_o"):
            found |= {at + f"attn.{name}.weight": (D, D), at + f"attn.{name}.bias": (D,)}
        if M:
            found |= {at + "norm2.weight": (D,), at + "norm2.bias": (D,)}
            found |= {at + "mlp.0.weight": (M, D), at + "mlp.0.bias": (M,)}
            found |= {at + "mlp.2.weight": (D, M), at + "mlp.2.bias": (D,)}
    return found | {"norm.weight": (D,), "norm.bias": (D,), "unembed.weight": (V, D), "unembed.bias": (V,)}


def start(config: Config, seed: int) -> Params:
    """Parameters before training, float32.

    Embeddings are normal with deviation 1, matrices with 0.1; biases are 0, the weights of norms 1.
    """
    random = np.random.RandomState([5, seed % 2**32, seed // 2**32])
    made = {}
    for name, shape in shapes(config).items():
        if len(shape) == 2:
            deviation = 1.0 if name in ("tokens.weight", "positions.weight") else 0.1
            made[name] = torch.from_numpy(random.standard_normal(shape) * deviation).float()
        else:
            made[name] = torch.full(shape, float(name.endswith("weight")))
    return made


def forward(
    config: Config, params: Params, ids: Tensor, edits: dict[str, Callable[[Tensor], Tensor]] | None = None
) -> dict[str, Tensor]:
    """Run a model on ids (B, T) and give everything on the way, by the name of the place.

    "embed" and "blocks.0", "blocks.1", ...: the residual stream (B, T, D); "blocks.0.attn", "blocks.0.mlp": what they
    add; "blocks.0.attn.pattern" (B, H, T, T); "blocks.0.attn.heads" (B, H, T, hd); "logits" (B, T, V).
    `edits` maps places to functions; the model goes on with what the function makes of the place's value.
    """
    T, H = ids.shape[1], int(config["H"])
    seen: dict[str, Tensor] = {}

    def at(place: str, x: Tensor) -> Tensor:
        seen[place] = edits[place](x) if edits and place in edits else x
        return seen[place]

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, params[name + ".weight"], params[name + ".bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], params[name + ".weight"], params[name + ".bias"], config["eps"])

    x = at("embed", params["tokens.weight"][ids] + params["positions.weight"][:T])
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    for block in (f"blocks.{layer}" for layer in range(int(config["L"]))):
        h = norm(x, block + ".norm1")
        q, k, v = (linear(h, f"{block}.attn.{W}").unflatten(-1, (H, -1)).transpose(1, 2) for W in ("W_q", "W_k", "W_v"))
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
        P = at(block + ".attn.pattern", scores.masked_fill(future, -math.inf).softmax(-1))
        heads = at(block + ".attn.heads", torch.einsum("bhij,bhjd->bhid", P, v))
        x = x + at(block + ".attn", linear(heads.transpose(1, 2).flatten(2), block + ".attn.W_o"))
        if config["d_mlp"]:
            hidden = F.gelu(linear(norm(x, block + ".norm2"), block + ".mlp.0"))
            x = x + at(block + ".mlp", linear(hidden, block + ".mlp.2"))
        x = at(block, x)
    at("logits", linear(norm(x, "norm"), "unembed"))
    return seen


# -- training and measuring


def predictable(logits: Tensor, ids: Tensor, period: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (n, V) and the right ids (n,) of the places that have seen their own id a period before."""
    again = torch.arange(ids.shape[1] - 1) >= period[:, None]  # (B, T - 1)
    return logits[:, :-1][again], ids[:, 1:][again]


def task(name: str, seed: int, number: int) -> Callable[[Params], tuple[Tensor, Tensor]]:
    """Draw examples; give what maps parameters to logits (n, V) and right ids (n,)."""
    config = CONFIGS[name]
    if name == "names":
        ids, answer, _ = introductions(seed, number)
        return lambda params: (forward(config, params, ids)["logits"][:, -1], answer)
    ids, period = repeats(seed, number)
    return lambda params: predictable(forward(config, params, ids)["logits"], ids, period)


def train(name: str, seed: int, steps: int) -> Params:
    """Train a model by Adam, 32 examples a step."""
    params = {key: p.requires_grad_() for key, p in start(CONFIGS[name], seed).items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.01 if name != "names" else 0.003, betas=(0.9, 0.98))
    for step in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(*task(name, 1000 * seed + step, 32)(params)).backward()
        optimizer.step()
    return {key: p.detach() for key, p in params.items()}


def behaviour(file: Path) -> dict[str, float]:
    """What the model of a file can do, on 500 examples that it has not seen: loss in nats and accuracy."""
    with torch.no_grad():
        logits, answer = task(file.stem, 10**9, 500)(load(file.stem, file.parent)[1])
    return {
        "loss": F.cross_entropy(logits, answer).item(),
        "accuracy": (logits.argmax(-1) == answer).double().mean().item(),
    }


def load(name: str, folder: Path = HERE) -> tuple[Config, Params]:
    """Read a shipped model: its config and its parameters, float32."""
    from safetensors.torch import load_file

    return dict(CONFIGS[name]), load_file(folder / f"{name}.safetensors")


def rebuild() -> None:
    """Train all models, write them, and compare what they can do with the card."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    for entry in tomllib.loads((HERE / "card.toml").read_text(encoding="utf-8"))["files"]:
        file = HERE / entry["name"]
        metadata = {"config": json.dumps(CONFIGS[file.stem])}
        save_file(train(file.stem, entry["seed"], entry["steps"]), file, metadata)
        for what, value in behaviour(file).items():
            said, within = entry["behaviour"][what], entry["tolerance"][what]
            print(f"{file.name}: {what} {value:.4f}, on the card {said} within {within}")
            if not abs(value - said) <= within:
                raise SystemExit(f"{file.name}: {what} is {value:.4f}, the card says {said} within {within}")


if __name__ == "__main__":
    rebuild()
