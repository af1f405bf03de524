# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels from source, shown with a tree that takes a second to build."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from viotest.errors import UsageError
from viotest.provision.kbuild import selftests
from viotest.provision.kbuild import source as sources
from viotest.provision.kbuild.build import KIND, Recipe, build_kernel
from viotest.provision.kbuild.config import read_fragments
from viotest.provision.kbuild.make import BuildError, first_error, patched_files
from viotest.provision.kbuild.names import build_named, list_named, provide_named
from viotest.provision.kernel import provide_kernel
from viotest.provision.kernel_options import GUEST_MODULES
from viotest.provision.module import build_modules
from viotest.provision.modules import ModuleIndex, dependencies, read_module

from .conftest import RELEASE, gzipped_kernel

if TYPE_CHECKING:
    from viotest.provision.progress import SilentProgress

MODULES = {
    "drivers/iommu/virtio-iommu": "",
    "drivers/iommu/iommufd/iommufd": "",
    "drivers/vfio/vfio": "iommufd",
    "drivers/vfio/vfio_iommu_type1": "vfio",
    "drivers/vfio/pci/vfio-pci": "vfio",
    "drivers/nvme/nvme": "",
}
#: As Kbuild prints, writes dependencies and links, for a kernel of one object.
MAKEFILE = r"""
VERSION = 6
MODULES = @MODULES@
.PHONY: mrproper allnoconfig bzImage modules
mrproper:
	rm -f .config
allnoconfig:
	@sed 's/^# \(CONFIG_.*\) is not set/\1=n/; /^#/d' $(KCONFIG_ALLCONFIG) | awk -F= \
	'NF { v[$$1] = $$2 } END { for (o in v) if (v[o] != "n") print o "=" v[o] }' | \
	grep -v -e UNMET -e UNKNOWN -e PROC_SYSCTL > .config
	@printf 'CONFIG_%s=y\n' ACPI_VIOT VFIO_IOMMU_TYPE1 >> .config
bzImage: init/main.o
	@echo "  BUILD   arch/x86/boot/bzImage"; cp image arch/x86/boot/bzImage
	@touch vmlinux.o Module.symvers modules.builtin
modules: $(MODULES:=.ko)
	@printf '%s.o\n' $(MODULES) > modules.order
init/main.o: init/main.c include/linux/iommu.h
	@echo "  CC      $@"; $(CC) -Iinclude -c -o $@ $<
	@printf 'source_%s := %s\n\ndeps_%s := \\\n  include/linux/iommu.h \\\n' \
	$@ $< $@ > init/.main.o.cmd
%.ko: %.c include/linux/vfio.h $(wildcard drivers/*/*-part.c)
	@set -e; : > $*.mod; for o in $* $(patsubst %.c,%,$(wildcard $*-part.c)); do \
	echo "  CC [M]  $$o.o"; $(CC) -Iinclude -c -o $$o.o $$o.c; \
	printf 'source_%s.o := %s.c\n\ndeps_%s.o := \\\n  include/linux/vfio.h \\\n' \
	$$o $$o $$o > $$(dirname $$o)/.$$(basename $$o).o.cmd; \
	echo $$o.o >> $*.mod; done; $(LD) -r -o $@ $$(cat $*.mod)
"""
SOURCE = """\
#include <linux/vfio.h>
static const char depends[] __attribute__((section(".modinfo"), used)) =
	"depends=@DEPENDS@\\0vermagic=@RELEASE@ SMP ";
int answer = VALUE;
int own = 1;
"""

pytestmark = pytest.mark.usefixtures("cache")


def make_tree(folder: Path) -> Path:
    """Write a kernel's source that builds in a second."""
    files = {
        "Kbuild": "",
        "Kconfig": "config UNMET\n\tbool\n",
        "scripts/Makefile.build": "",
        "tools/Makefile": "",
        "tools/objtool/Makefile": "",
        "tools/objtool/objtool": "",
        "arch/x86/boot/Makefile": "",
        "include/linux/vfio.h": "#define VALUE 1\n",
        "include/linux/iommu.h": "",
        "drivers/vfio/vfio-part.c": "int part = 1;\n",
        "init/main.c": "#include <linux/iommu.h>\nint main;\n",
        "Makefile": MAKEFILE.replace("@MODULES@", " ".join(MODULES)),
    }
    for name, depends in MODULES.items():
        text = SOURCE.replace("@DEPENDS@", depends).replace("@RELEASE@", RELEASE)
        files[f"{name}.c"] = text
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "image").write_bytes(gzipped_kernel())
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The source of a small kernel."""
    return make_tree(tmp_path / "linux")


def patch_of(tree: Path, name: str, old: str, new: str) -> Path:
    """Write a patch that changes one text of a file."""
    before = (tree / name).read_text()
    assert old in before
    work = tree.parent / "work"
    for side, text in (("a", before), ("b", before.replace(old, new))):
        (work / side / name).parent.mkdir(parents=True, exist_ok=True)
        (work / side / name).write_text(text)
    done = subprocess.run(
        ["diff", "-u", f"a/{name}", f"b/{name}"],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    patch = tree.parent / f"{Path(name).stem}.patch"
    patch.write_text(done.stdout)
    return patch


def left_over(cache: Path) -> list[str]:
    """Return what builds that failed have left in the cache."""
    folders = (cache / KIND, cache / "tmp", cache / "module")
    paths = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return [path.name for path in paths if path.name != ".lock"]


def test_tree_becomes_a_kernel_with_modules(
    tree: Path, progress: SilentProgress
) -> None:
    assert build_named(Recipe(str(tree)), None, progress) == "linux"
    kernel = provide_kernel("build:linux", None, progress)
    assert (kernel.spec, kernel.release, kernel.pvh) == ("build:linux", RELEASE, True)
    assert kernel.config["CONFIG_VFIO_DEVICE_CDEV"] == "y"
    assert kernel.modules is not None
    names = (*GUEST_MODULES, "vfio_iommu_type1")
    order = ModuleIndex(kernel.modules).load_order(names)
    assert list(order) == [
        "virtio_iommu",
        "iommufd",
        "vfio",
        "vfio_pci",
        "vfio_iommu_type1",
    ]
    assert (kernel.image.parent / "bzImage").read_bytes() == gzipped_kernel()


def test_tree_is_left_as_it_was(tree: Path, progress: SilentProgress) -> None:
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    build_kernel(Recipe(str(tree)), progress)
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


def test_same_inputs_are_built_once(
    tree: Path, progress: SilentProgress, tmp_path: Path
) -> None:
    first = build_kernel(Recipe(str(tree)), progress)
    before = first.path.stat().st_ino
    # The content counts, not where it is or when it was written.
    copy = make_tree(tmp_path / "copy")
    assert build_kernel(Recipe(str(copy)), progress).path == first.path
    assert first.path.stat().st_ino == before
    (copy / "init/main.c").write_text("int other;\n")
    assert build_kernel(Recipe(str(copy)), progress).path != first.path


def test_tarball_builds_like_its_tree(
    tree: Path, progress: SilentProgress, tmp_path: Path
) -> None:
    archive = tmp_path / "linux-6.12.1.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tree, "linux-6.12.1")
    assert build_named(Recipe(str(archive)), None, progress) == "linux-6.12.1"
    assert provide_named("linux-6.12.1", progress).facts["release"] == RELEASE


def test_git_tree_leaves_out_what_was_built(
    tree: Path, progress: SilentProgress
) -> None:
    (tree / ".gitignore").write_text("*.o\nvmlinux\n")
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    first = sources.find_source(str(tree), progress).digest
    (tree / "vmlinux").write_text("built")
    assert sources.find_source(str(tree), progress).digest == first
    (tree / "new.c").write_text("written, not added")
    assert sources.find_source(str(tree), progress).digest != first


def test_patched_kernel_has_a_name_of_its_own(
    tree: Path, progress: SilentProgress
) -> None:
    patch = patch_of(tree, "drivers/vfio/vfio.c", "own = 1", "own = 2")
    name = build_named(Recipe(str(tree), (patch,)), None, progress)
    assert name == "linux+vfio"
    plain = build_kernel(Recipe(str(tree)), progress)
    patched = provide_named(name, progress)
    assert patched.path != plain.path
    vfio = "lib/modules/" + RELEASE + "/kernel/drivers/vfio/vfio.ko"
    assert (patched.path / vfio).read_bytes() != (plain.path / vfio).read_bytes()


def test_lost_kernel_is_built_again_by_its_name(
    tree: Path, progress: SilentProgress
) -> None:
    build_named(Recipe(str(tree)), "mine", progress)
    image = provide_named("mine", progress).path / "vmlinux"
    image.unlink()
    assert [row.release for row in list_named() if row.name == "mine"] == [None]
    assert (provide_named("mine", progress).path / "vmlinux") == image
    assert image.is_file()
    assert [row.release for row in list_named() if row.name == "mine"] == [RELEASE]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("CONFIG_UNMET=y", r"CONFIG_UNMET=y did not stick.*dependencies in Kconfig"),
        ("CONFIG_UNKNOWN=m", r"UNKNOWN=m did not stick.*has no such option"),
        ("nonsense", "own.config:1: 'nonsense' is no option"),
    ],
)
def test_fragment_that_does_not_stick_is_named(
    tree: Path, progress: SilentProgress, cache: Path, line: str, said: str
) -> None:
    fragment = tree.parent / "own.config"
    fragment.write_text(f"{line}\n")
    with pytest.raises(UsageError, match=said):
        build_kernel(Recipe(str(tree), fragments=(fragment,)), progress)
    assert left_over(cache) == []


def test_fragment_of_the_user_wins(tree: Path, progress: SilentProgress) -> None:
    fragment = tree.parent / "own.config"
    fragment.write_text("CONFIG_NR_CPUS=2\n# CONFIG_INET is not set\n")
    recipe = Recipe(str(tree), fragments=(fragment,))
    entry = build_kernel(recipe, progress)
    assert entry.facts["config"]["CONFIG_NR_CPUS"] == "2"
    # What it says counts, not how it is commented.
    fragment.write_text("# CONFIG_INET is not set\n\n# Few.\nCONFIG_NR_CPUS=2\n")
    assert build_kernel(recipe, progress).path == entry.path
    # What a guest cannot do without is refused where a guest is to be made of it.
    name = build_named(recipe, None, progress)
    with pytest.raises(UsageError, match=r"build:linux.own .* lacks CONFIG_INET"):
        provide_kernel(f"build:{name}", None, progress)


def test_source_that_is_none_is_refused(
    tmp_path: Path, progress: SilentProgress
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.tar.xz").write_text("no archive")
    with tarfile.open(tmp_path / "other.tar", "w") as file:
        file.add(tmp_path / "folder", "folder")
    for spec, said in {
        f"{tmp_path}/nothing": "no kernel source .*known: linux-7.3",
        f"{tmp_path}/folder": "is no kernel source: no Makefile at its top",
        f"{tmp_path}/file.tar.xz": "is no tarball of kernel source",
        f"{tmp_path}/other.tar": "is no kernel source: no Makefile",
        "debian:nginx": "'nginx' is no package of kernel source",
    }.items():
        with pytest.raises(UsageError, match=said):
            build_kernel(Recipe(spec), progress)
    assert list_named() == [row for row in list_named() if row.name in sources.PROVIDED]


def test_patch_that_does_not_apply_leaves_nothing(
    tree: Path, progress: SilentProgress, cache: Path
) -> None:
    patch = patch_of(tree, "drivers/vfio/vfio.c", "own = 1", "own = 2")
    patch.write_text(patch.read_text().replace("own = 1", "own = 7"))
    said = r"vfio.patch does not apply to .*drivers/vfio/vfio.c: .*FAILED"
    with pytest.raises(BuildError, match=said):
        build_kernel(Recipe(str(tree), (patch,)), progress)
    with pytest.raises(UsageError, match="cannot read the patch /nowhere"):
        build_kernel(Recipe(str(tree), (Path("/nowhere"),)), progress)
    assert left_over(cache) == []


def test_source_that_does_not_compile_is_quoted(
    tree: Path, progress: SilentProgress, cache: Path
) -> None:
    (tree / "init/main.c").write_text("int main = nonsense;\n")
    with pytest.raises(BuildError, match=r"init/main.c:1:12: error: .nonsense"):
        build_kernel(Recipe(str(tree)), progress)
    assert left_over(cache) == []


@pytest.mark.parametrize("name", ["../up", "a b", "", "linux-7.3"])
def test_bad_name_is_refused(tree: Path, progress: SilentProgress, name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        build_named(Recipe(str(tree)), name, progress)


def test_unknown_name_tells_the_nearest(progress: SilentProgress) -> None:
    for name in ("linux-7.4", "", "../../etc"):
        with pytest.raises(UsageError, match=r"has been built .*nearest: build:linux-"):
            provide_kernel(f"build:{name}", None, progress)


# -- modules


@pytest.fixture
def built(tree: Path, progress: SilentProgress) -> Path:
    """The source of a kernel that has been built as build:linux."""
    build_named(Recipe(str(tree)), None, progress)
    return tree


def test_patched_module_alone_is_built_again(
    built: Path, progress: SilentProgress
) -> None:
    patch = patch_of(built, "drivers/vfio/pci/vfio-pci.c", "own = 1", "own = 2")
    (module,) = build_modules("build:linux", patch, progress)
    assert module.name == "vfio_pci.ko"
    assert dependencies(read_module(module)) == ["vfio"]
    before = module.stat().st_ino
    assert build_modules("build:linux", patch, progress) == [module]
    assert module.stat().st_ino == before


def test_module_of_several_objects_is_built_again(
    built: Path, progress: SilentProgress
) -> None:
    patch = patch_of(built, "drivers/vfio/vfio-part.c", "part = 1", "part = 2")
    names = [path.name for path in build_modules("build:linux", patch, progress)]
    assert names == ["vfio.ko"]


def test_header_rebuilds_every_module_that_uses_it(
    built: Path, progress: SilentProgress
) -> None:
    patch = patch_of(built, "include/linux/vfio.h", "VALUE 1", "VALUE 2")
    names = [path.name for path in build_modules("build:linux", patch, progress)]
    assert len(names) == len(MODULES)
    assert "vfio_iommu_type1.ko" in names


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("init/main.c", "main", "niam", "init/main.c, which is part of the kernel"),
        ("include/linux/iommu.h", "", "// x", "iommu.h, which is part of the kernel"),
        ("drivers/vfio/vfio.c", "int own", "/* */ int own", "changes no module"),
    ],
)
def test_patch_to_other_than_modules_is_refused(
    built: Path,
    progress: SilentProgress,
    cache: Path,
    name: str,
    old: str,
    new: str,
    said: str,
) -> None:
    before = left_over(cache)
    patch = patch_of(built, name, old, new)
    with pytest.raises(UsageError, match=said):
        build_modules("build:linux", patch, progress)
    assert left_over(cache) == before


def test_patch_that_names_no_file_is_refused(
    built: Path, progress: SilentProgress
) -> None:
    patch = built.parent / "empty.patch"
    patch.write_text("nothing\n")
    with pytest.raises(UsageError, match="it names no file"):
        build_modules("build:linux", patch, progress)


# -- selftests

SELFTESTS = """\
all:
	@test "$(LDFLAGS)" = "-static -pthread"
	@mkdir -p $(OUTPUT)/libvfio
	$(CC) $(KHDR_INCLUDES) $(LDFLAGS) -o $(OUTPUT)/vfio_pci_device_test one.c
	@touch $(OUTPUT)/vfio_pci_device_test.d
"""


def test_selftests_are_static_and_of_the_same_source(
    tree: Path, progress: SilentProgress
) -> None:
    folder = tree / selftests.FOLDER
    folder.mkdir(parents=True)
    (folder / "Makefile").write_text(SELFTESTS)
    (folder / "one.c").write_text(
        "#include <made.h>\nint main(void) { return MADE; }\n"
    )
    headers = "headers:\n\tmkdir -p usr/include\n\techo '#define MADE 7' > $@/made.h\n"
    headers = headers.replace("$@", "usr/include")
    (tree / "Makefile").write_text((tree / "Makefile").read_text() + headers)
    name = build_named(Recipe(str(tree)), None, progress)
    made = selftests.provide_selftests(f"build:{name}", progress)
    assert made is not None
    files = selftests.selftest_files(made)
    assert list(files) == ["selftests/vfio/vfio_pci_device_test"]
    assert subprocess.run([made / "vfio_pci_device_test"], check=False).returncode == 7
    before = made.stat().st_ino
    assert selftests.provide_selftests(f"build:{name}", progress) == made
    assert made.stat().st_ino == before


def test_kernel_without_selftests_has_none(
    built: Path, progress: SilentProgress
) -> None:
    assert selftests.provide_selftests("build:linux", progress) is None
    with pytest.raises(UsageError, match="need a kernel's source: debian:trixie"):
        selftests.provide_selftests("debian:trixie", progress)


def test_patched_files_are_read_from_both_sides() -> None:
    text = b"--- a/drivers/vfio/vfio.c\t2026\n+++ b/drivers/vfio/vfio.c\n"
    text += (
        b"--- /dev/null\n+++ b/drivers/vfio/new.c\n@@ -1 +1 @@\n--- a/comment\n+no\n"
    )
    assert patched_files(text) == ["drivers/vfio/new.c", "drivers/vfio/vfio.c"]


def test_first_error_is_the_cause_not_the_consequence() -> None:
    said = ["warning: x", "make: *** [a.o] Error 1", "a.c:1: error: the cause"]
    assert first_error(said) == "a.c:1: error: the cause"
    assert first_error(said[:2]) == said[1]
    assert first_error([]) == "it said nothing"


def test_own_fragments_ask_for_each_option_once() -> None:
    names = [name for part in read_fragments(()) for name in part.options]
    assert len(names) == len(set(names))
