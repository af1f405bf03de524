# SPDX-License-Identifier: GPL-2.0-or-later
"""The C core's mapping store against a model of it, by operations at random."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_SRC = Path(__file__).parents[2] / "device" / "core" / "src"
_TOP = (1 << 64) - 1


class _Mapping(ctypes.Structure):
    pass


# As struct mapping of mapping.h.
_Mapping._fields_ = [
    ("start", ctypes.c_uint64),
    ("end", ctypes.c_uint64),
    ("phys", ctypes.c_uint64),
    ("left", ctypes.POINTER(_Mapping)),
    ("right", ctypes.POINTER(_Mapping)),
    ("flags", ctypes.c_uint32),
    ("height", ctypes.c_uint32),
]


class _Tree(ctypes.Structure):
    # As struct mapping_tree.
    _fields_: ClassVar = [
        ("root", ctypes.POINTER(_Mapping)),
        ("free", ctypes.c_void_p),
        ("slabs", ctypes.c_void_p),
        ("slab_size", ctypes.c_size_t),
        ("nr_mappings", ctypes.c_uint64),
        ("nr_bytes", ctypes.c_uint64),
    ]


class Model:
    """What a mapping store is, without any thought of speed."""

    def __init__(self) -> None:
        #: start to (end, phys)
        self.mappings: dict[int, tuple[int, int]] = {}

    def first(self, start: int, end: int) -> int | None:
        """Return the start of the first mapping with a byte in start .. end."""
        found = [s for s, (e, _) in self.mappings.items() if s <= end and e >= start]
        return min(found, default=None)

    def insert(self, start: int, end: int, phys: int) -> bool:
        """Insert a mapping; False if it would overlap."""
        if self.first(start, end) is not None:
            return False
        self.mappings[start] = (end, phys)
        return True

    def cut(self, start: int, end: int) -> list[int]:
        """Take out what starts in start .. end; return where that was."""
        gone = sorted(s for s in self.mappings if start <= s <= end)
        for s in gone:
            del self.mappings[s]
        return gone

    def nr_bytes(self) -> int:
        """Count the mapped bytes."""
        return sum(e - s + 1 for s, (e, _) in self.mappings.items())


class Store:
    """The C functions on one tree."""

    library: ClassVar[ctypes.CDLL]

    def __init__(self) -> None:
        self.tree = _Tree()
        self.library.mapping_tree_init(ctypes.byref(self.tree))

    def close(self) -> None:
        self.library.mapping_tree_deinit(ctypes.byref(self.tree))

    def insert(self, start: int, end: int, phys: int) -> None:
        mapping = self.library.mapping_alloc(ctypes.byref(self.tree))
        mapping.contents.start, mapping.contents.end = start, end
        mapping.contents.phys = phys
        self.library.mapping_insert(ctypes.byref(self.tree), mapping)

    def find(self, addr: int) -> tuple[int, int, int] | None:
        return _triple(self.library.mapping_find(ctypes.byref(self.tree), _u64(addr)))

    def first(self, start: int, end: int) -> tuple[int, int, int] | None:
        tree = ctypes.byref(self.tree)
        return _triple(self.library.mapping_first(tree, _u64(start), _u64(end)))

    def cut(self, start: int, end: int) -> list[int]:
        tree = ctypes.byref(self.tree)
        cut = self.library.mapping_cut(tree, _u64(start), _u64(end))
        gone = [node.start for node in _walk(cut)]
        self.library.mapping_reclaim(tree, cut)
        return gone


def _u64(value: int) -> ctypes.c_uint64:
    return ctypes.c_uint64(value)


def _triple(node: ctypes._Pointer[_Mapping]) -> tuple[int, int, int] | None:
    if not node:
        return None
    return node.contents.start, node.contents.end, node.contents.phys


def _walk(node: ctypes._Pointer[_Mapping]) -> Iterator[_Mapping]:
    if node:
        yield from _walk(node.contents.left)
        yield node.contents
        yield from _walk(node.contents.right)


def _height(node: ctypes._Pointer[_Mapping]) -> int:
    """Check that every node is balanced, and return the height."""
    if not node:
        return 0
    left, right = _height(node.contents.left), _height(node.contents.right)
    assert abs(left - right) <= 1
    assert node.contents.height == 1 + max(left, right)
    return 1 + max(left, right)


# Dense at both ends of the address space, so that ranges touch and overlap.
_ADDRESSES = st.integers(0, 60) | st.integers(_TOP - 20, _TOP)


class MappingStore(RuleBasedStateMachine):
    """The same operations on the store and on its model."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.model = Store(), Model()

    def teardown(self) -> None:
        self.store.close()

    @initialize(starts=st.permutations(range(0, 60, 2)))
    def fill(self, starts: list[int]) -> None:
        # Trees of a few nodes know few of the ways to become unbalanced.
        for start in starts:
            self.insert(start, 0, start)

    @rule(start=_ADDRESSES, length=st.integers(0, 6), phys=st.integers(0, _TOP))
    def insert(self, start: int, length: int, phys: int) -> None:
        end = min(start + length, _TOP)
        overlap = self.store.first(start, end)
        if self.model.insert(start, end, phys):
            assert overlap is None
            self.store.insert(start, end, phys)
        else:
            assert overlap is not None

    @rule(addr=_ADDRESSES)
    def find(self, addr: int) -> None:
        start = self.model.first(addr, addr)
        expected = None if start is None else (start, *self.model.mappings[start])
        assert self.store.find(addr) == expected

    @rule(start=_ADDRESSES, end=_ADDRESSES)
    def first(self, start: int, end: int) -> None:
        low, high = min(start, end), max(start, end)
        found = self.store.first(low, high)
        assert (None if found is None else found[0]) == self.model.first(low, high)

    @rule(start=_ADDRESSES, end=_ADDRESSES)
    def cut(self, start: int, end: int) -> None:
        low, high = min(start, end), max(start, end)
        assert self.store.cut(low, high) == self.model.cut(low, high)

    @rule(data=st.data())
    def cut_one(self, data: st.DataObject) -> None:
        if self.model.mappings:
            start = data.draw(st.sampled_from(sorted(self.model.mappings)))
            end, _ = self.model.mappings[start]
            assert self.store.cut(start, end) == self.model.cut(start, end)

    @invariant()
    def agrees(self) -> None:
        tree = self.store.tree
        rows = [(node.start, (node.end, node.phys)) for node in _walk(tree.root)]
        assert rows == sorted(self.model.mappings.items())
        assert tree.nr_mappings == len(rows)
        assert tree.nr_bytes == self.model.nr_bytes() % (1 << 64)
        _height(tree.root)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The store alone, as a shared library with its functions visible."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    path = tmp_path_factory.mktemp("mapping") / "mapping.so"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    source = _SRC / "mapping.c"
    subprocess.run([compiler, *flags, "-o", path, source], check=True, timeout=60)
    library = ctypes.CDLL(str(path))
    for name in ("mapping_alloc", "mapping_find", "mapping_first", "mapping_cut"):
        getattr(library, name).restype = ctypes.POINTER(_Mapping)
    return library


def test_mapping_store_agrees_with_its_model(library: ctypes.CDLL) -> None:
    Store.library = library
    run_state_machine_as_test(
        MappingStore,
        settings=settings(max_examples=150, stateful_step_count=40, deadline=None),
    )
