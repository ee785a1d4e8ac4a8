"""Turns the beginning of a request's id into the whole of it: `baton tail` prints twelve characters, and no command needs more.

It must never guess: where more than one request begins so, it names them.
"""

from collections.abc import Iterable
from typing import Any

import click

from shared.ids import is_beside

CHARS_MIN = 8
"""In a log of a million requests, one in 4,000 begins like another one; with a character less, one in 270."""

NAMED_MAX = 5


class RequestId(click.ParamType):
    """Of a command's argument: an id, or its beginning."""

    name = "request_id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if len(value) < CHARS_MIN:
            self.fail(f"{value!r} is too little of an id: give its first {CHARS_MIN} characters, or more", param, ctx)
        return str(value)


def whole_id(beginning: str, ids: Iterable[str]) -> str | None:
    """The one that begins so, or None. A request comes before those that were made beside it, whose ids begin with its own.

    Raises ClickException where more than one begins so.
    """
    found = {id for id in ids if id.startswith(beginning)}
    if beginning in found:
        return beginning
    candidates = sorted({id for id in found if not is_beside(id)} or found)
    if len(candidates) > 1:
        more = f" and {len(candidates) - NAMED_MAX} more" if len(candidates) > NAMED_MAX else ""
        named = ", ".join(candidates[:NAMED_MAX])
        raise click.ClickException(f"{len(candidates)} requests begin with {beginning}: {named}{more}; give more of the id")
    return candidates[0] if candidates else None
