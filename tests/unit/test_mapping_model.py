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

_CORE = Path(__file__).parents[2] / "device" / "core"
_SRC, _TESTS = _CORE / "src", _CORE / "tests"
_TOP = (1 << 64) - 1


#: Entries of a node: so few that a tree is deep soon, and what the device has.
_FANOUTS = (8, 32)

_CHECK = """
#include "mapping_check.h"

const char *check(const struct mapping_tree *tree)
{
	return mapping_check(tree);
}
"""


class _Mapping(ctypes.Structure):
    # As struct mapping of mapping.h.
    _fields_: ClassVar = [
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("phys", ctypes.c_uint64),
        ("flags", ctypes.c_uint8),
    ]


class _Tree(ctypes.Structure):
    # As struct mapping_tree.
    _fields_: ClassVar = [
        ("root", ctypes.c_void_p),
        ("cut", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
        ("nr_free", ctypes.c_uint),
        ("slabs", ctypes.c_void_p),
        ("slab_nodes", ctypes.c_size_t),
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

    def whole(self, start: int, end: int) -> tuple[int, int]:
        """Return a range made wider, so that it has no mapping in part."""
        for s, (e, _) in self.mappings.items():
            if s <= end and e >= start:
                start, end = min(start, s), max(end, e)
        return start, end

    def cut(self, start: int, end: int) -> bool:
        """Take out what lies in start .. end; return whether there was anything."""
        gone = [s for s in self.mappings if start <= s <= end]
        for s in gone:
            del self.mappings[s]
        return bool(gone)

    def nr_bytes(self) -> int:
        """Count the mapped bytes."""
        return sum(e - s + 1 for s, (e, _) in self.mappings.items())


class Store:
    """The C functions on one tree."""

    library: ClassVar[ctypes.CDLL]

    def __init__(self) -> None:
        self.tree = _Tree()
        self._tree = ctypes.byref(self.tree)
        self.library.mapping_tree_init(self._tree)

    def close(self) -> None:
        self.library.mapping_tree_deinit(self._tree)

    def insert(self, start: int, end: int, phys: int) -> None:
        assert self.library.mapping_prepare(self._tree) == 0
        mapping = _Mapping(start, end, phys, 0)
        self.library.mapping_insert(self._tree, ctypes.byref(mapping))

    def find(self, addr: int) -> tuple[int, int, int] | None:
        found = _Mapping()
        there = self.library.mapping_find(
            self._tree, ctypes.c_uint64(addr), ctypes.byref(found)
        )
        return (found.start, found.end, found.phys) if there else None

    def first(self, start: int, end: int) -> tuple[int, int, int] | None:
        found = _Mapping()
        there = self.library.mapping_first(
            self._tree,
            ctypes.c_uint64(start),
            ctypes.c_uint64(end),
            ctypes.byref(found),
        )
        return (found.start, found.end, found.phys) if there else None

    def cut(self, start: int, end: int) -> bool:
        any_gone = self.library.mapping_cut(
            self._tree, ctypes.c_uint64(start), ctypes.c_uint64(end)
        )
        self.library.mapping_reclaim(self._tree)
        return bool(any_gone)

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """Return every mapping, in order."""
        row = self.first(0, _TOP)
        while row:
            yield row
            row = self.first(row[1] + 1, _TOP) if row[1] < _TOP else None

    def problem(self) -> str:
        """Tell what does not hold of the tree; empty if all does."""
        said = self.library.check(self._tree)
        return said.decode() if said else ""


# Dense at both ends of the address space, so that ranges touch and overlap.
_ADDRESSES = st.integers(0, 200) | st.integers(_TOP - 20, _TOP)


class MappingStore(RuleBasedStateMachine):
    """The same operations on the store and on its model."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.model = Store(), Model()

    def teardown(self) -> None:
        self.store.close()

    @initialize(factor=st.sampled_from([1, 7, 29, 99]))
    def fill(self, factor: int) -> None:
        # Trees of a few nodes know few of the ways to need mending.
        for start in (i * factor % 100 * 2 for i in range(100)):
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
        low, high = self.model.whole(min(start, end), max(start, end))
        assert self.store.cut(low, high) == self.model.cut(low, high)

    @rule(data=st.data())
    def cut_one(self, data: st.DataObject) -> None:
        if self.model.mappings:
            start = data.draw(st.sampled_from(sorted(self.model.mappings)))
            end, _ = self.model.mappings[start]
            assert self.store.cut(start, end) == self.model.cut(start, end)

    @invariant()
    def agrees(self) -> None:
        rows = [(start, (end, phys)) for start, end, phys in self.store.rows()]
        assert rows == sorted(self.model.mappings.items())
        assert self.store.problem() == ""
        assert self.store.tree.nr_mappings == len(rows)
        assert self.store.tree.nr_bytes == self.model.nr_bytes() % (1 << 64)


@pytest.fixture(scope="module", params=_FANOUTS)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    """The store alone, as a shared library with its functions visible."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    folder = tmp_path_factory.mktemp("mapping")
    (folder / "check.c").write_text(_CHECK)
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    flags += [f"-DMAPPING_FANOUT={request.param}u", f"-I{_SRC}", f"-I{_TESTS}"]
    sources = [_SRC / "mapping.c", _SRC / "mapping_node.c", folder / "check.c"]
    target = folder / "mapping.so"
    command = [compiler, *flags, "-o", f"{target}", *map(str, sources)]
    subprocess.run(command, check=True, timeout=60)
    library = ctypes.CDLL(str(target))
    for name in ("mapping_find", "mapping_first", "mapping_cut"):
        getattr(library, name).restype = ctypes.c_bool
    library.check.restype = ctypes.c_char_p
    return library


def test_mapping_store_agrees_with_its_model(library: ctypes.CDLL) -> None:
    Store.library = library
    run_state_machine_as_test(
        MappingStore,
        settings=settings(max_examples=150, stateful_step_count=40, deadline=None),
    )
