"""What importing a library costs: the time in a fresh interpreter, less that of a bare one, and the modules loaded."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

from worker import say

COUNT = "import sys; before = set(sys.modules); import {}; print(len(set(sys.modules) - before))"


def run(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)  # -I: no module of the directory it runs in
    return time.perf_counter() - start


def one_round(module: str, count: int) -> dict[str, Any]:
    """Bare and importing in turn, so that both have the same machine."""
    bare, importing = [], []
    for _ in range(count):
        bare.append(run("pass"))
        importing.append(run(f"import {module}"))
    return {"import": statistics.median(importing) - statistics.median(bare)}


def main() -> None:
    """The program: arguments are the module, and as JSON the imports of a round."""
    module, count = sys.argv[1], json.loads(sys.argv[2])["count"]
    counted = subprocess.run(
        [sys.executable, "-I", "-c", COUNT.format(module)], check=True, capture_output=True, text=True
    )
    run(f"import {module}")
    say({"ready": True})
    for _ in sys.stdin:
        say({"messages": count, "modules": int(counted.stdout), **one_round(module, count)})


if __name__ == "__main__":
    main()
