"""Every data set has a card that tells the truth, and is rebuilt by the command on it, bit for bit or by behaviour."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from grader.testing import dataset

DATASETS = Path(__file__).parent.parent.parent / "datasets"
FOLDERS = sorted(card.parent for card in DATASETS.glob("*/card.toml"))
LARGEST = 100_000

each_dataset = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@each_dataset
def test_the_card_is_whole(folder: Path) -> None:
    card = tomllib.loads((folder / "card.toml").read_text(encoding="utf-8"))
    assert card["format_version"] == 1
    assert card["command"] == f"python datasets/{folder.name}/make.py"
    for key in ("title", "summary", "licence", "truth"):
        assert card[key].strip(), key
    listed = {file["name"] for file in card["files"]}
    assert {file.name for file in folder.iterdir() if file.is_file()} == listed | {"card.toml", "make.py"}
    for file in card["files"]:
        data = (folder / file["name"]).read_bytes()
        assert len(data) == file["bytes"] <= LARGEST
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
        assert "seed" in file


@each_dataset
def test_its_command_rebuilds_it(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "datasets" / folder.name
    copy.mkdir(parents=True)
    for name in ("make.py", "card.toml"):
        shutil.copy(folder / name, copy / name)
    card = tomllib.loads((folder / "card.toml").read_text(encoding="utf-8"))
    _, *arguments = shlex.split(card["command"])
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, capture_output=True)
    for file in card["files"]:
        shipped, rebuilt = folder / file["name"], copy / file["name"]
        if card.get("rebuild") == "by behaviour":  # trained weights: the last bits differ from machine to machine
            assert rebuilt.stat().st_size == file["bytes"]
            for one in (shipped, rebuilt):
                behaviour = dataset(folder.name).behaviour(one)
                assert behaviour.keys() == file["behaviour"].keys() == file["tolerance"].keys()
                for key, said in file["behaviour"].items():
                    assert abs(behaviour[key] - said) <= file["tolerance"][key], key
        else:
            assert rebuilt.read_bytes() == shipped.read_bytes()


@each_dataset
def test_it_is_reached_by_name_and_listed(folder: Path) -> None:
    assert Path(dataset(folder.name).__file__ or "") == folder / "make.py"
    assert f"[{folder.name}]({folder.name})" in (DATASETS / "README.md").read_text(encoding="utf-8")


def test_an_unknown_name_is_a_sentence() -> None:
    with pytest.raises(LookupError, match="there is no data set 'nothing'; there are .*markov"):
        dataset("nothing")
