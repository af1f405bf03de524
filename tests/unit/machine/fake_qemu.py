# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for QEMU: connects its chardevs, speaks QMP, and does as it is told.

Commands of its own: x-say (write to the console), x-event, x-exit, x-abort.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time


def connect(chardev: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    for argument in sys.argv:
        if found := re.fullmatch(rf"socket,id={chardev},path=(.*)", argument):
            sock.connect(found[1])
    return sock


def open_pipe(chardev: str) -> int:
    for argument in sys.argv:
        if found := re.fullmatch(rf"pipe,id={chardev},path=(.*)", argument):
            os.open(f"{found[1]}.in", os.O_RDWR)
            return os.open(f"{found[1]}.out", os.O_RDWR)
    raise AssertionError(sys.argv)


class FakeQemu:
    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.monitor = connect("mon")
        self.console = os.fdopen(open_pipe("console"), "wb", buffering=0)
        self.ssh = socket.socket(socket.AF_UNIX)
        self.ssh.bind("ssh.sock")
        self.ssh.listen()

    def send(self, message: dict[str, object]) -> None:
        self.monitor.sendall(json.dumps(message).encode() + b"\r\n")

    def reply(self, request: dict[str, object], message: dict[str, object]) -> None:
        # The client gives its first command no id.
        if "id" in request:
            message["id"] = request["id"]
        self.send(message)

    def execute(self, command: str, arguments: dict[str, object]) -> object:
        if command == "x-say":
            self.console.write(str(arguments["text"]).encode("latin-1"))
        elif command == "x-event":
            self.send({"event": arguments["name"], "data": arguments["data"]})
        elif command == "x-exit":
            os._exit(int(str(arguments["status"])))
        elif command == "x-abort":
            os.abort()
        elif command == "query-status":
            return {"status": "running", "running": True}
        return {}

    def serve(self) -> None:
        self.send({"QMP": {"version": {"fake": 1}, "capabilities": ["oob"]}})
        if self.mode == "hang":
            time.sleep(60)
        decoder, buffer = json.JSONDecoder(), ""
        while data := self.monitor.recv(4096):
            buffer = (buffer + data.decode()).lstrip()
            while buffer:
                try:
                    message, end = decoder.raw_decode(buffer)
                except ValueError:
                    break
                buffer = buffer[end:].lstrip()
                if not self.handle(message):
                    return

    def handle(self, message: dict[str, object]) -> bool:
        command, arguments = str(message["execute"]), message.get("arguments", {})
        assert isinstance(arguments, dict)
        if command == "x-refuse":
            error = {"class": "CommandNotFound", "desc": "no such command"}
            self.reply(message, {"error": error})
            return True
        if command == "quit" and self.mode == "stubborn":
            return True
        self.reply(message, {"return": self.execute(command, arguments)})
        return command != "quit"


def main() -> int:
    mode = sys.argv[1]
    if mode == "broken":
        sys.stderr.write("qemu: -device vfio-user-pci: Connection refused\n")
        return 1
    fake = FakeQemu(mode)
    sys.stderr.write("up\n")
    if mode == "early":
        return 1
    fake.serve()
    return 9 if mode == "leaky" else 0


if __name__ == "__main__":
    sys.exit(main())
