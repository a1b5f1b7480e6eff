"""The facts that a measurement is nothing without: which machine, which system, which versions, how busy."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
from typing import Any

from .environments import ROOT


def facts() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": ssl.OPENSSL_VERSION,
        "commit": commit(),
    }


def cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    return platform.machine()


def commit() -> str:
    """The commit of the checkout, "+ changes" where the working tree has some, or "unknown" without git."""
    try:
        head = subprocess.check_output(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, text=True).strip()
        changes = subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} + changes" if changes else head


def load() -> list[float]:
    return [round(average, 2) for average in os.getloadavg()]
