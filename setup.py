"""The optional C part; all else is in pyproject.toml."""

import sys
import sysconfig

from setuptools import Extension, setup

# The limited API has the buffer protocol from 3.11 on; builds without the GIL have no limited API.
limited = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "websocket._speedups",
            ["websocket/_speedups.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if limited else [],
            py_limited_api=limited,
            optional=True,  # without a compiler _pure.py does the same
        )
    ],
)
