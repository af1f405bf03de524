# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's base image: one cpio archive per kernel, without any secret.

The main function is :func:`provide_initramfs`. Errors: UsageError for modules that do
not fit the kernel; UntestableError for what cannot be fetched or built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from viotest.errors import UsageError
from viotest.provision import assets, cache
from viotest.provision.kernel_options import (
    EXTRA_MODULES,
    GUEST_MODULES,
    OPTIONAL_MODULES,
)
from viotest.provision.userland import probe_key, provide_probe, provide_userland

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from viotest.provision.cpio import CpioWriter
    from viotest.provision.kernel import Kernel
    from viotest.provision.progress import Progress

#: Part of the archive's key; goes up when the recipe below changes.
RECIPE = 2
TEMPLATE = "init.sh.j2"
#: Loads a module that the boot script does not; a program of the guest.
LOADER = "load-module.sh"
#: The address that QEMU's user network expects the guest to have.
ADDRESS = "10.0.2.15"
NETMASK = "255.255.255.0"
HOSTNAME = "viotest"
#: What the boot script calls, and what a person in the guest may want.
# fmt: off
APPLETS = (
    "awk", "basename", "cat", "chmod", "clear", "cmp", "cp", "cut", "date", "dd", "df",
    "dirname", "dmesg", "echo", "env", "expr", "false", "find", "free", "grep", "halt",
    "head", "hexdump", "hostname", "id", "ifconfig", "insmod", "ip", "kill", "less",
    "ln", "ls", "lsmod", "mkdir", "mknod", "modinfo", "mount", "mv", "nc", "netstat",
    "nproc", "od", "pidof", "ping", "poweroff", "printf", "ps", "pwd", "readlink",
    "realpath", "reboot", "rm", "rmdir", "rmmod", "sed", "sh", "sleep", "sort", "stat",
    "strings", "stty", "sync", "tail", "tar", "tee", "test", "time", "timeout", "top",
    "touch", "tr", "true", "umount", "uname", "uniq", "uptime", "vi", "watch", "wc",
    "which", "xargs", "xxd",
)
# fmt: on
_FSTAB = """\
proc /proc proc defaults 0 0
sysfs /sys sysfs defaults 0 0
devtmpfs /dev devtmpfs defaults 0 0
"""
_INITTAB = """\
::sysinit:/viotest/boot
::ctrlaltdel:/bin/reboot -f
::shutdown:/bin/sync
"""
_FILES = {
    "etc/fstab": _FSTAB,
    "etc/group": "root:x:0:\n",
    "etc/hosts": f"127.0.0.1 localhost\n{ADDRESS} {HOSTNAME}\n",
    "etc/inittab": _INITTAB,
    # No password: dropbear is told to take keys only.
    "etc/passwd": "root:*:0:0:root:/root:/bin/sh\n",
    "etc/shells": "/bin/sh\n",
}
_FOLDERS = {
    "dev": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "root/.ssh": 0o700,
    "run": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "var/log": 0o755,
    "var/run": 0o755,
}


def provide_initramfs(
    kernel: Kernel,
    progress: Progress,
    *,
    replace_modules: Mapping[str, Path] | None = None,
) -> Path:
    """Return the base archive for a kernel.

    :param kernel: The kernel that will boot it.
    :param progress: Where long work is shown.
    :param replace_modules: Module files that take the place of the kernel's, by name.
    :return: The archive; a run appends its own with
        :func:`~viotest.provision.cpio.concat_initramfs`.
    :raise UsageError: When the modules do not fit the kernel.
    :raise UntestableError: When a part cannot be fetched or built.
    """
    replaced = dict(replace_modules or {})
    template = assets.template(TEMPLATE).read_bytes()
    loader = (assets.guest_images() / LOADER).read_bytes()
    recipe = cache.digest_of(RECIPE, template, loader, probe_key(), _FILES, APPLETS)
    where = [str(path) for path in (kernel.modules, *replaced.values())]
    memo_key = cache.digest_of(recipe, kernel.release, where, list(replaced))
    modules = _remembered_modules(memo_key)
    if modules is None:
        modules = _find_modules(kernel, replaced)
        memo = {name: cache.file_identity(path) for name, path in modules.items()}
        cache.write_memo("initramfs-modules", memo_key, memo)

    def build(folder: Path) -> Mapping[str, Any]:
        scripts = {"viotest/boot": _render(template), "bin/load-module": loader}
        _write_archive(folder / "initramfs.cpio", modules, scripts, progress)
        return {"modules": list(modules)}

    identities = [cache.file_identity(path) for path in modules.values()]
    key = cache.digest_of(recipe, kernel.release, list(modules), identities)
    entry = cache.provide("initramfs", key, build, progress, what="guest image")
    return entry.path / "initramfs.cpio"


def _remembered_modules(key: str) -> dict[str, Path] | None:
    # Finding out means to unpack every module; they are the same until one changes.
    from pathlib import Path

    memo = cache.read_memo("initramfs-modules", key)
    if memo is None:
        return None
    try:
        modules = {name: Path(identity[0]) for name, identity in memo.items()}
        same = all(
            cache.file_identity(path) == memo[name] for name, path in modules.items()
        )
    except (OSError, TypeError, IndexError):
        return None
    return modules if same else None


def _find_modules(kernel: Kernel, replaced: Mapping[str, Path]) -> dict[str, Path]:
    from viotest.provision.modules import ModuleIndex, modinfo, read_module

    if kernel.modules is None:
        return dict(replaced)
    index = ModuleIndex(kernel.modules)
    modules = index.load_order((*GUEST_MODULES, *OPTIONAL_MODULES, *EXTRA_MODULES))
    for name in GUEST_MODULES:
        if name not in modules and not index.is_builtin(name):
            what = f"kernel {kernel.spec} ({kernel.release}) has no module {name}"
            raise UsageError(what, hint=f"looked in {kernel.modules}")
    unknown = [name for name in replaced if name not in modules]
    if unknown:
        raise UsageError(f"the guest has no module {unknown[0]} to replace")
    modules.update(replaced)
    for name, path in modules.items():
        vermagic = modinfo(read_module(path), "vermagic") or "nothing"
        if vermagic.split(" ", 1)[0] != kernel.release:
            what = f"module {name} is for {vermagic.split(' ', 1)[0]}"
            raise UsageError(f"{what}, the kernel is {kernel.release}", hint=str(path))
    return modules


def _write_archive(
    path: Path,
    modules: Mapping[str, Path],
    scripts: Mapping[str, bytes],
    progress: Progress,
) -> None:
    from viotest.provision.cpio import CpioWriter
    from viotest.provision.modules import read_module, with_dependencies

    userland = provide_userland(progress)
    probe = provide_probe(progress)
    with progress.step("packing the guest's image"), path.open("wb") as file:
        writer = CpioWriter(file)
        _write_system(writer)
        _write_programs(writer, userland, probe)
        for name, text in sorted(scripts.items()):
            writer.file(name, text, 0o755)
        writer.file("viotest/module-params", b"")
        data = {name: read_module(path) for name, path in modules.items()}
        at_boot = with_dependencies(data, (*GUEST_MODULES, *OPTIONAL_MODULES))
        writer.file("viotest/modules", _lines(at_boot))
        extra = [" ".join(_loaded_first(data, name)) for name in EXTRA_MODULES]
        writer.file("viotest/modules.dep", _lines(filter(None, extra)))
        for name in sorted(data):
            writer.file(f"viotest/modules.d/{name}.ko", data[name])
        writer.close()


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _loaded_first(data: Mapping[str, bytes], name: str) -> list[str]:
    # The module, then what it depends on; nothing for a module that is not there.
    from viotest.provision.modules import with_dependencies

    order = with_dependencies(data, [name])
    return [*order[-1:], *order[:-1]]


def _write_system(writer: CpioWriter) -> None:
    for name, mode in sorted(_FOLDERS.items()):
        writer.folder(name, mode)
    # Needed before devtmpfs is mounted: the kernel opens it for pid 1.
    writer.character_device("dev/console", 0o600, 5, 1)
    for name, text in sorted(_FILES.items()):
        writer.file(name, text.encode())


def _write_programs(writer: CpioWriter, userland: Path, probe: Path) -> None:
    for program in sorted((userland / "bin").iterdir()):
        writer.file(f"bin/{program.name}", program.read_bytes(), 0o755)
    writer.file("bin/vfio-probe", probe.read_bytes(), 0o755)
    for applet in APPLETS:
        writer.link(f"bin/{applet}", "busybox")
    writer.link("init", "bin/busybox")
    for library in sorted((userland / "lib").iterdir()):
        loader = library.name.startswith("ld-linux")
        folder = "lib64" if loader else "lib/x86_64-linux-gnu"
        writer.file(f"{folder}/{library.name}", library.read_bytes(), 0o755)


def _render(template: bytes) -> bytes:
    # Imported late: only a build needs it.
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    text = environment.from_string(template.decode()).render(
        hostname=HOSTNAME, address=ADDRESS, netmask=NETMASK
    )
    return text.encode()
