"""Small pictures for the vision cases, made from colours: PNG, no library. Pure."""

import base64
import struct
import zlib

RGB = tuple[int, int, int]
SIDE = 64

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (20, 160, 60), (30, 60, 220), (240, 220, 40)


def halves(left: RGB, right: RGB) -> str:
    """A data URL of a square picture: one colour on the left, another on the right."""
    row = b"\0" + bytes(left) * (SIDE // 2) + bytes(right) * (SIDE // 2)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(row * SIDE)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
