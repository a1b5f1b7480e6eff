"""The fuzz targets hold for their seeds, without atheris."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

FUZZING = Path(__file__).resolve().parent.parent / "fuzzing"
TARGETS = sorted(path.stem for path in FUZZING.glob("*.py") if path.stem != "harness")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(FUZZING), *sys.path])
    monkeypatch.setitem(sys.modules, "atheris", None)  # an import of it fails
    yield lambda name: runpy.run_path(str(FUZZING / f"{name}.py"))
    sys.modules.pop("harness", None)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds_and_for_parts_of_them(name: str, load: Any) -> None:
    module = load(name)
    assert module["SEEDS"]
    for seed in [b"", *module["SEEDS"]]:
        for size in {0, 1, len(seed) // 2, len(seed) - 1, len(seed)}:
            module["target"](seed[: max(size, 0)])


def test_an_input_is_taken_apart_and_swollen(load: Any) -> None:
    module = load("harness")
    source = module["Input"](b"\x05\x01\x02abc")
    assert (source.flags(3), source.number(), source.text(2), source.rest()) == ([True, False, True], 258, "ab", b"c")
    assert (bool(source), source.byte(), source.take(3), source.cuts()) == (False, 0, b"", [])
    swollen = module["Input"](b"\x01\xc2\x00\x03abcd").swollen
    assert swollen(100) == b"abcbcbcd"


@pytest.mark.parametrize("steps", [[], [0], [1], [2, 0, 3], [255]])
@pytest.mark.parametrize("data", [b"", b"a", bytes(range(100))])
def test_pieces_are_the_data(steps: list[int], data: bytes, load: Any) -> None:
    parts = load("harness")["pieces"](data, steps, 50)
    assert b"".join(parts) == data
    assert max(map(len, parts)) <= 50
