"""What a model sees in a picture: the colour in its middle, or of a side. PNG of eight bits per channel, from its bytes alone."""

import base64
import binascii
import re
import struct
import zlib

_ASKED = re.compile(r"\bcolou?rs?\b|\bfarbe\b|\bcouleur\b|\bcolor\b")
_SIDES = {"left": (1, 4, 1, 2), "right": (3, 4, 1, 2), "top": (1, 2, 1, 4), "bottom": (1, 2, 3, 4)}
_NAMES = {
    "red": (255, 0, 0), "green": (0, 160, 60), "blue": (0, 0, 255), "yellow": (255, 230, 0), "black": (0, 0, 0),
    "white": (255, 255, 255), "orange": (255, 140, 0), "purple": (128, 0, 128), "grey": (128, 128, 128),
}  # fmt: skip
_PREFIX = "data:image/png;base64,"
_PIXELS_MAX = 1_000_000
_CHANNELS = {2: 3, 6: 4}


def colour_asked(lowered: str, image: str) -> str | None:
    """The name of the colour that the prompt asks for; None where it asks for none, or the picture cannot be read."""
    if not _ASKED.search(lowered) or not image.startswith(_PREFIX):
        return None
    side = next((where for name, where in _SIDES.items() if re.search(rf"\b{name}\b", lowered)), (1, 2, 1, 2))
    try:
        pixel = _pixel(base64.b64decode(image[len(_PREFIX) :], validate=True), *side)
    except (binascii.Error, zlib.error, struct.error, ValueError, IndexError):
        return None
    return min(_NAMES, key=lambda name: sum((a - b) ** 2 for a, b in zip(_NAMES[name], pixel, strict=True)))


def _pixel(png: bytes, x: int, x_of: int, y: int, y_of: int) -> tuple[int, ...]:
    """Red, green and blue at x/x_of from the left and y/y_of from the top. Raises ValueError for what it cannot read."""
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", png[16:29])
    if bits != 8 or kind not in _CHANNELS or interlaced or not 0 < width * height <= _PIXELS_MAX:
        raise ValueError("not a small picture of eight bits per channel")
    channels = _CHANNELS[kind]
    row, before = b"", bytes(width * channels)
    raw = zlib.decompressobj().decompress(_data(png), (width * channels + 1) * height)
    for number in range(height * y // y_of + 1):
        at = number * (width * channels + 1)
        row = before = _unfiltered(raw[at], raw[at + 1 : at + 1 + width * channels], before, channels)
    start = width * x // x_of * channels
    return tuple(row[start : start + 3])


def _data(png: bytes) -> bytes:
    """The compressed rows of all chunks."""
    at, found = 8, b""
    while at + 8 <= len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        found += png[at + 8 : at + 8 + length] if name == b"IDAT" else b""
        at += length + 12
    return found


def _unfiltered(kind: int, line: bytes, above: bytes, channels: int) -> bytes:
    """One row of a PNG, its filter undone: https://www.w3.org/TR/png-3/ section 9."""
    row = bytearray()
    for at, value in enumerate(line):
        left = row[at - channels] if at >= channels else 0
        corner = above[at - channels] if at >= channels else 0
        add = (0, left, above[at], (left + above[at]) // 2, _nearest(left, above[at], corner))[kind]
        row.append((value + add) % 256)
    return bytes(row)


def _nearest(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda known: abs(guess - known))
