"""Where live poses go: JSON lines on standard output or into a file, OSC messages to other programs on this machine."""

from __future__ import annotations

import json
import socket
import struct
import sys
from pathlib import Path
from typing import Protocol, TextIO

from lifting.skeletons import Skeleton
from lifting.streaming import Pose

LOOPBACK = "127.0.0.1"


class PoseSink(Protocol):
    """Takes poses as they come."""

    def write(self, pose: Pose) -> None:
        """Pass on one pose. Raises OSError when that fails."""

    def close(self) -> None:
        """Pass on what is left and release the file or socket."""


class JsonLines:
    """One JSON object a line: a header, then a line for each pose, written at once.

    The header names skeleton, joints, unit, axes and look-ahead. A pose has ``time`` (seconds), ``seen``, ``root``
    (metres, camera axes), ``joints`` (metres, relative to the root) and ``sigma`` (metres). A file grows line by line
    under its own name, so that all up to a power cut is kept; each line is whole. It replaces an older one.

    Raises OSError when the file cannot be written.
    """

    def __init__(self, target: str | Path | TextIO, skeleton: Skeleton, lookahead: int = 0) -> None:
        self._owned = isinstance(target, str | Path) and str(target) != "-"
        if self._owned:
            self._file: TextIO = open(target, "w", encoding="utf-8")  # noqa: SIM115  closed by `close`
        else:
            self._file = sys.stdout if isinstance(target, str | Path) else target
        self._put({"format": "lift live", "version": 1, "skeleton": skeleton.name, "joints": list(skeleton.joints),
                   "unit": "m", "frame": "camera", "axes": "x right, y down, z forward", "lookahead": lookahead})

    def write(self, pose: Pose) -> None:
        """Write one line; numbers to a tenth of a millimetre."""
        self._put({"time": round(pose.time, 4), "seen": pose.seen, "root": _rounded(pose.root),
                   "joints": [_rounded(joint) for joint in pose.joints], "sigma": _rounded(pose.sigma)})  # fmt: skip

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._owned:
            self._file.close()

    def _put(self, entry: dict) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._file.flush()


def _rounded(values) -> list[float]:  # noqa: ANN001
    return [round(float(value), 4) for value in values]


class OscSender:
    """One OSC bundle in one UDP datagram for each pose, to a program on this machine.

    ``/lift/time`` (float, seconds), ``/lift/seen`` (int, 0 or 1), ``/lift/root`` (x, y, z) and, for each joint,
    ``/lift/joint/NAME`` (x, y, z, sigma): metres, camera axes, positions absolute. Open Sound Control 1.0, section "OSC
    Packets". Whether anybody listens is not known and does not matter.

    Raises ValueError for a port outside 1 to 65535.
    """

    def __init__(self, port: int, skeleton: Skeleton) -> None:
        if not 1 <= port <= 65535:
            raise ValueError(f"got the OSC port {port}, expected a number from 1 to 65535")
        self._address = (LOOPBACK, port)
        self._joints = [f"/lift/joint/{name}" for name in skeleton.joints]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def write(self, pose: Pose) -> None:
        """Send one pose."""
        messages = [osc_message("/lift/time", pose.time), osc_message("/lift/seen", int(pose.seen)),
                    osc_message("/lift/root", *map(float, pose.root))]  # fmt: skip
        for address, joint, sigma in zip(self._joints, pose.absolute, pose.sigma, strict=True):
            messages.append(osc_message(address, *map(float, joint), float(sigma)))
        self._socket.sendto(osc_bundle(messages), self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def osc_message(address: str, *values: float | int) -> bytes:
    """An OSC message of whole numbers (int32) and others (float32), big endian."""
    tags = "," + "".join("i" if isinstance(value, int) else "f" for value in values)
    return _padded(address) + _padded(tags) + struct.pack(">" + tags[1:], *values)


def osc_bundle(messages: list[bytes]) -> bytes:
    """An OSC bundle that is to be taken at once."""
    immediately = struct.pack(">Q", 1)
    return _padded("#bundle") + immediately + b"".join(struct.pack(">i", len(one)) + one for one in messages)


def _padded(text: str) -> bytes:
    """Text with one to four zeros at its end, so that its length is a multiple of four."""
    data = text.encode("ascii")
    return data + bytes(4 - len(data) % 4)
