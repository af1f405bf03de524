# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the cffi extension ``viotest_device._core`` (API mode) from the C core.

The declarations are the text between the cdef markers of the one public header,
so that they cannot drift from what the compiler sees.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cffi import FFI

_ROOT = Path(__file__).resolve().parents[2]
_CORE = _ROOT / "device" / "core"
_SANITIZE = os.environ.get("VIOTEST_SANITIZE", "")


def _cdef(header: str) -> str:
    marked = re.search(r"/\* cdef-begin \*/(.*)/\* cdef-end \*/", header, re.DOTALL)
    if marked is None:
        raise ValueError("viommu.h has no cdef markers")
    return marked.group(1)


def _relative(path: Path) -> str:
    # setuptools wants sources relative to the folder of setup.py.
    return os.path.relpath(path, _ROOT)


ffibuilder = FFI()
ffibuilder.cdef(_cdef((_CORE / "include" / "viommu.h").read_text()))
ffibuilder.set_source(
    "viotest_device._core",
    """
    #include "viommu.h"
    _Static_assert(sizeof(struct viommu_log_record) == 64, "log record");
    _Static_assert(VIOMMU_NR_COUNTERS == 22, "counters of the log header");
    """,
    sources=sorted(_relative(source) for source in (_CORE / "src").glob("*.c")),
    include_dirs=[_relative(_CORE / "include"), _relative(_CORE / "src")],
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=[
        "-std=gnu11",
        "-O2",
        "-g",
        "-Wall",
        "-Wextra",
        "-fvisibility=hidden",
        "-pthread",
        *([f"-fsanitize={_SANITIZE}"] if _SANITIZE else []),
    ],
    extra_link_args=["-pthread", *([f"-fsanitize={_SANITIZE}"] if _SANITIZE else [])],
)
