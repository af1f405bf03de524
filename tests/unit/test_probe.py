# SPDX-License-Identifier: GPL-2.0-or-later
"""vfio-probe on this host, and the Python that drives it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.probe_program import PipeTransport, build_probe, start_probe
from viotest.errors import ViotestError
from viotest.guest.probe import (
    Probe,
    ProbeError,
    ProbeReplyError,
    format_command,
    pattern,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_probe(tmp_path_factory.mktemp("probe"), "vfio-probe")


@pytest.fixture
def pipe(program: Path) -> Iterator[PipeTransport]:
    with start_probe(program) as transport:
        yield transport


@pytest.fixture
def probe(pipe: PipeTransport) -> Probe:
    return Probe(pipe)


class CannedTransport:
    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.lines: list[str] = []

    def request(self, line: str, timeout: float) -> str:
        self.lines.append(line)
        return self.answer


def run_program(program: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *lines], capture_output=True, text=True, check=False
    )


def parse_failure(pipe: PipeTransport, line: bytes) -> str:
    reply = json.loads(pipe.request_bytes(line + b"\n"))
    assert reply["ok"] is False
    assert reply["op"] == "parse"
    assert isinstance(reply["text"], str)
    return reply["text"]


# --- the program -------------------------------------------------------------


def test_hello_tells_the_guest(probe: Probe) -> None:
    before = time.monotonic_ns()
    reply = probe.call("hello")
    assert reply["release"] == os.uname().release
    assert reply["page_size"] == os.sysconf("SC_PAGESIZE")
    assert isinstance(reply["ns"], int)
    assert before <= reply["ns"] <= time.monotonic_ns()


def test_argument_is_a_command_line(program: Path) -> None:
    done = run_program(program, "hello", "read path=/nowhere", "hello")
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert [reply["ok"] for reply in replies] == [True, False, True]
    assert done.returncode == 1


def test_beacon_is_the_only_line(program: Path) -> None:
    [line] = run_program(program, "beacon").stdout.splitlines()
    word, fields = line.split(" ", 1)
    assert word == "VIOTEST-BEACON"
    assert json.loads(fields).keys() == {"monotonic_ns", "release"}


def test_beacon_goes_to_device(probe: Probe, tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.touch()
    probe.call("beacon", dev=str(console))
    assert console.read_text().startswith('VIOTEST-BEACON {"monotonic_ns":')
    assert console.read_text().count("\n") == 1


def test_last_line_without_end_is_run(program: Path) -> None:
    done = subprocess.run([program], input=b"hello", capture_output=True, check=True)
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "unknown command ''"),
        (b"frobnicate", "unknown command 'frobnicate'"),
        (b"hello x=1", "unknown key 'x'"),
        (b"read", "key 'path' is missing"),
        (b"read path", "'path' is not key=value"),
        (b"read path=/a path=/b", "key 'path' is given twice"),
        (b"read path=/a max=0x", "bad value of key 'max': '0x'"),
        (b"read path=/a max=-1", "bad value of key 'max': '-1'"),
        (b"read path=/a max=0x0x1", "bad value of key 'max': '0x0x1'"),
        (b"read path=/a max=1k", "bad value of key 'max': '1k'"),
        (b"read path=/a max=", "bad value of key 'max': ''"),
        (b"read path=/a max=99999999999999999999", "bad value of key 'max'"),
        (b"read path=/a%zz", "bad value of key 'path'"),
        (b"read path=/a%2", "bad value of key 'path'"),
        (b"read path=/a%00b", "bad value of key 'path'"),
        (b"dmesg clear=2", "bad value of key 'clear': '2'"),
        (b"hello\0", "the line holds a NUL byte"),
        (b"hello " + b"x" * 70000, "the line is too long"),
        (b"open bdf=../../etc mode=type1", "bad bdf '../../etc'"),
        (b"open bdf=0000:00:04.8 mode=type1", "bad bdf '0000:00:04.8'"),
        (b"open bdf=0000:00:04.0 mode=type9", "unknown mode 'type9'"),
        (b"bind bdf=0000:00:04.0 driver=../x", "bad driver '../x'"),
        (b"extension id=VFIO_NONE", "unknown extension 'VFIO_NONE'"),
        (b"kprobe-set spec=x:y", "spec is not 'p:NAME ...' or 'r:NAME ...'"),
    ],
)
def test_bad_line_is_refused(pipe: PipeTransport, line: bytes, text: str) -> None:
    assert parse_failure(pipe, line).startswith(text)
    # The next line is a new command.
    assert json.loads(pipe.request("hello", 10.0))["ok"] is True


def test_read_text_as_it_is(probe: Probe, tmp_path: Path) -> None:
    file = tmp_path / "a file=%"
    file.write_bytes(b'\xff"\\\n\x01\x7f\0' + "ü€😀".encode() + b"\xed\xa0\x80\xc0\xaf")
    reply = probe.call("read", path=str(file))
    assert reply["text"] == '\xff"\\\n\x01\x7f\0ü€😀\xed\xa0\x80\xc0\xaf'
    assert reply["truncated"] is False


def test_read_stops_at_max(probe: Probe, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("abcd")
    reply = probe.call("read", path=str(file), max=3)
    assert (reply["text"], reply["truncated"]) == ("abc", True)


def test_read_missing_file_fails(probe: Probe) -> None:
    with pytest.raises(ProbeError, match="read: open: ENOENT: No such file") as caught:
        probe.call("read", path="/nowhere")
    assert caught.value.errno == errno.ENOENT
    assert isinstance(caught.value, ViotestError)


@pytest.mark.parametrize("missing", ["kernel", "initrd"])
def test_kexec_load_names_what_is_missing(
    probe: Probe, tmp_path: Path, missing: str
) -> None:
    paths = {name: tmp_path / name for name in ("kernel", "initrd")}
    for name, path in paths.items():
        if name != missing:
            path.write_bytes(b"")
    with pytest.raises(ProbeError, match=f"open: ENOENT: .*/{missing}") as failed:
        probe.call(
            "kexec-load", kernel=str(paths["kernel"]), initrd=str(paths["initrd"])
        )
    assert failed.value.errno == errno.ENOENT


def test_write_is_exact(probe: Probe, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    reply = probe.call("write", path=str(file), data="a b\n%\0ü\udcff")
    assert file.read_bytes() == "a b\n%\0ü".encode() + b"\xff"
    assert reply["written"] == 9


def test_write_tells_errno_of_write(probe: Probe) -> None:
    with pytest.raises(ProbeError) as caught:
        probe.call("write", path="/dev/full", data="x")
    assert (caught.value.op, caught.value.error) == ("write", "ENOSPC")


def test_write_makes_no_file(probe: Probe, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="ENOENT"):
        probe.call("write", path=str(tmp_path / "new"), data="x")
    assert not list(tmp_path.iterdir())


def test_list_and_readlink(probe: Probe, tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    (tmp_path / "a").symlink_to("b")
    assert probe.call("list", path=str(tmp_path))["names"] == ["a", "b"]
    assert probe.call("readlink", path=str(tmp_path / "a"))["target"] == "b"


# --- buffers -----------------------------------------------------------------


def read_buffer(probe: Probe, name: str, size: int) -> bytes:
    hex_text = probe.call("peek", name=name, size=size)["hex"]
    assert isinstance(hex_text, str)
    return bytes.fromhex(hex_text)


@pytest.mark.parametrize(("seed", "size", "position"), [
    (0, 4096, 0), (1, 1, 0), (2**64 - 1, 1001, 3), (7, 5, 2), (7, 9, 2**40 + 5),
])  # fmt: skip
def test_fill_is_pattern(probe: Probe, seed: int, size: int, position: int) -> None:
    expected = pattern(seed, size, position=position)
    probe.call("buf", name="a", size=size)
    probe.call("fill", name="a", seed=seed, position=position)
    assert read_buffer(probe, "a", size) == expected
    assert probe.call("crc", name="a")["crc32"] == zlib.crc32(expected)
    assert probe.call("check", name="a", seed=seed, position=position)["equal"] is True


def test_pattern_can_be_entered_anywhere() -> None:
    whole = pattern(42, 64)
    assert all(whole[at:] == pattern(42, 64 - at, position=at) for at in range(64))
    assert pattern(42, 0) == b""


def test_pattern_is_splitmix64() -> None:
    # The first two outputs of the published generator for seed 0.
    assert pattern(0, 16) == bytes.fromhex("afcd1d7b39a820e2f465b9a16a9e786e")


@pytest.mark.parametrize("at", [0, 7, 8, 4095, 9999])
def test_check_finds_first_difference(probe: Probe, at: int) -> None:
    probe.call("buf", name="a", size=10000)
    probe.call("fill", name="a", seed=5)
    right = pattern(5, 10000)[at]
    probe.call("poke", name="a", offset=at, hex=f"{right ^ 0x80:02x}")
    reply = probe.call("check", name="a", seed=5)
    assert reply["equal"] is False
    assert reply["first_difference"] == at
    assert reply["expected_byte"] == right
    assert reply["actual_byte"] == right ^ 0x80


def test_check_byte(probe: Probe) -> None:
    probe.call("buf", name="a", size=100)
    probe.call("set", name="a", byte=0xA5)
    probe.call("set", name="a", byte=0, offset=60, size=1)
    assert probe.call("check", name="a", byte=0xA5, size=60)["equal"] is True
    reply = probe.call("check", name="a", byte=0xA5, offset=50)
    assert (reply["first_difference"], reply["actual_byte"]) == (10, 0)


def test_compare(probe: Probe) -> None:
    for name in ("a", "b"):
        probe.call("buf", name=name, size=5000)
        probe.call("fill", name=name, seed=3)
    reply = probe.call("compare", a="a", b="b")
    assert (reply["equal"], reply["first_difference"]) == (True, None)
    probe.call("set", name="b", byte=pattern(3, 5000)[4000] ^ 1, offset=4000, size=1)
    reply = probe.call("compare", a="a", b="b", offset_a=1000, offset_b=1000)
    assert reply["first_difference"] == 3000
    assert isinstance(reply["a_byte"], int)
    assert reply["b_byte"] == reply["a_byte"] ^ 1


def test_compare_of_different_sizes_needs_a_size(probe: Probe) -> None:
    probe.call("buf", name="a", size=10)
    probe.call("buf", name="b", size=20)
    with pytest.raises(ProbeError, match="sizes differ: 10, 20"):
        probe.call("compare", a="a", b="b")
    assert probe.call("compare", a="a", b="b", size=10)["equal"] is True


def test_buf_is_aligned(probe: Probe) -> None:
    reply = probe.call("buf", name="a", size=4097, align=2**21)
    assert isinstance(reply["address"], int)
    assert reply["address"] % 2**21 == 0
    assert reply["capacity"] == 8192
    probe.call("set", name="a", byte=1, size=8192)


@pytest.mark.parametrize(("args", "error"), [
    ({"name": "a"}, "EEXIST"), ({"name": ""}, "EINVAL"), ({"name": "x" * 32}, "EINVAL"),
    ({"size": 0}, "EINVAL"), ({"size": 2**64 - 1}, "EINVAL"),
    ({"size": 2**40}, "ENOMEM"),
    ({"align": 3}, "EINVAL"), ({"align": 0}, "EINVAL"),
])  # fmt: skip
def test_bad_buf_is_refused(probe: Probe, args: dict[str, Any], error: str) -> None:
    probe.call("buf", name="a", size=16)
    with pytest.raises(ProbeError) as caught:
        probe.call("buf", **{"name": "b", "size": 16, **args})
    assert caught.value.error == error


@pytest.mark.parametrize(("offset", "size"), [
    (4097, 0), (4096, 1), (0, 4097), (2**64 - 1, 2), (1, 2**64 - 2),
])  # fmt: skip
def test_range_beyond_buffer_is_refused(probe: Probe, offset: int, size: int) -> None:
    probe.call("buf", name="a", size=16)
    with pytest.raises(ProbeError) as caught:
        probe.call("set", name="a", byte=0, offset=offset, size=size)
    assert caught.value.error == "ERANGE"


def test_freed_buffer_is_gone(probe: Probe) -> None:
    probe.call("buf", name="a", size=16)
    probe.call("buf-free", name="a")
    with pytest.raises(ProbeError, match="no buffer 'a'"):
        probe.call("crc", name="a")


@pytest.mark.parametrize("hex_text", ["a", "zz", "0x", "00" * 4097])
def test_bad_hex_is_refused(probe: Probe, hex_text: str) -> None:
    probe.call("buf", name="a", size=8192)
    with pytest.raises(ProbeError, match="hex is not"):
        probe.call("poke", name="a", hex=hex_text)


# --- the Python side ---------------------------------------------------------


def test_command_is_percent_encoded() -> None:
    line = format_command("write", path="/a b", data="50%\n=ü", max=0x10)
    assert line == "write path=/a%20b data=50%25%0A=%C3%BC max=16"


@pytest.mark.parametrize("answer", [
    "", "oops", "[]", "{}", '{"ok":1,"command":"hello"}', '{"ok":true}', "[" * 100000,
    '{"ok":true,"command":"read"}', '{"ok":false,"command":"hello"}',
    '{"ok":false,"command":"hello","op":"x","errno":"5","text":""}',
])  # fmt: skip
def test_answer_that_is_none_is_reported(answer: str) -> None:
    with pytest.raises(ProbeReplyError, match="hello: not an answer") as caught:
        Probe(CannedTransport(answer)).call("hello")
    assert caught.value.line == answer
    assert len(str(caught.value)) < 500


def test_failure_keeps_what_was_known() -> None:
    answer = (
        '{"ok":false,"command":"wait","op":"wait","errno":110,"text":"late","done":3}'
    )
    transport = CannedTransport(answer)
    with pytest.raises(ProbeError, match="wait: wait: ETIMEDOUT: late") as caught:
        Probe(transport).call("wait", slot=1)
    assert caught.value.reply["done"] == 3
    assert transport.lines == ["wait slot=1"]


def test_build_is_reproducible(program: Path, tmp_path: Path) -> None:
    again = build_probe(tmp_path, "vfio-probe")
    assert again.read_bytes() == program.read_bytes()
    assert os.fsencode(Path.cwd()) not in again.read_bytes()
