# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for viotest-device: READY line, request log, monitor; no functions."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path


def beat() -> None:
    with Path("device.bin").open("wb", buffering=0) as log:
        log.write(b"VIOTLOG1" + bytes(4088))
        while True:
            os.pwrite(log.fileno(), struct.pack("=Q", time.monotonic_ns()), 40)
            time.sleep(0.1)


def serve(sock: socket.socket, mode: str) -> None:
    def send(message: object) -> None:
        sock.sendall(json.dumps(message).encode() + b"\r\n")

    send({"QMP": {"version": {"fake": 1}, "capabilities": []}})
    decoder, buffer = json.JSONDecoder(), ""
    while data := sock.recv(4096):
        buffer = (buffer + data.decode()).lstrip()
        while buffer:
            try:
                message, end = decoder.raw_decode(buffer)
            except ValueError:
                break
            buffer = buffer[end:].lstrip()
            if message["execute"] == "quit" and mode == "stubborn":
                continue
            reply: dict[str, object] = {"return": {}}
            if "id" in message:
                reply["id"] = message["id"]
            send(reply)
            if message["execute"] == "quit":
                return


def main() -> int:
    mode = sys.argv[1]
    if mode == "broken":
        sys.stderr.write("device.toml: no such key: 'sokcet'\n")
        return 3
    if mode != "heartless":
        threading.Thread(target=beat, daemon=True).start()
    else:
        Path("device.bin").write_bytes(b"VIOTLOG1" + bytes(4088))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("device-monitor.sock")
    listener.listen()
    Path("ep0.sock").unlink(missing_ok=True)
    socket.socket(socket.AF_UNIX).bind("ep0.sock")
    if mode == "mute":
        time.sleep(60)
    while not Path("device.bin").exists():
        time.sleep(0.001)
    ready = b"hello\n" if mode == "confused" else b'{"event": "READY"}\n'
    os.write(1, ready)
    sock = listener.accept()[0]
    if mode == "brief":
        threading.Timer(0.2, os._exit, [7]).start()
    serve(sock, mode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
