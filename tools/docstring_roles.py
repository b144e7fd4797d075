"""An extension of griffe: the roles in docstrings, such as ``:func:`name```, become plain code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|data|mod|attr):`(~?)([^`]+)`")


def plain(text: str) -> str:
    """The text with each role as code; ``~`` leaves the last part of the name."""

    def code(match: re.Match[str]) -> str:
        short, name = match.groups()
        return f"`{name.rpartition('.')[2] if short else name}`"

    return _ROLE.sub(code, text)


class Roles(griffe.Extension):
    """Changes each docstring when it has been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """See griffe."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
