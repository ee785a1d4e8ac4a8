"""Bytes of an event stream, cut anywhere, to the data of its events. Pure; knows no dialect.

Source: WHATWG HTML, server-sent events. Names, ids and comments are dropped: every dialect here repeats in the data what
counts. A line that is no field is handed on as data, where the standard drops it: some servers send their last error bare, and
what is garbled must not vanish.
"""

_BOM = b"\xef\xbb\xbf"
_DROPPED = (b":", b"event:", b"id:", b"retry:")


class Events:
    """Splits one stream. Lines may end in LF, CRLF or CR; an event's data lines are joined by LF."""

    __slots__ = ("_begun", "_data", "_ends_in_cr", "_held")

    def __init__(self) -> None:
        self._held: list[bytes] = []   # pieces of a line that has not ended: joined once, when it does
        self._data: list[bytes] = []
        self._ends_in_cr = False
        self._begun = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes."""
        if self._ends_in_cr or b"\r" in piece:
            piece = self._plain(piece)
        at = piece.rfind(b"\n")
        if at < 0:
            self._held.append(piece)
            return []
        self._held.append(piece[:at])
        lines = b"".join(self._held).split(b"\n")
        self._held = [piece[at + 1 :]]
        if not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(_BOM)
        return self._events(lines)

    def end(self) -> list[bytes]:
        """What the stream held at its end: many servers leave out the blank line after their last event."""
        self._ends_in_cr = False
        return self._events([*b"".join(self._held).split(b"\n"), b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    events.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data = []
            elif line.startswith(b"data: "):
                data.append(line[6:])
            elif line.startswith(b"data:"):
                data.append(line[5:])
            elif not line.startswith(_DROPPED):
                events.append(line)
        self._data = data
        return events

    def _plain(self, piece: bytes) -> bytes:
        """The piece with LF for every line end. A CR at its end is held back: its LF may be in the next piece."""
        if self._ends_in_cr:
            piece = b"\r" + piece
        self._ends_in_cr = piece.endswith(b"\r")
        if self._ends_in_cr:
            piece = piece[:-1]
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
