"""Terminals that show pictures: which can, and what they are sent. Pure."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Protocol", "encode_picture", "find_protocol"]

Protocol = Literal["kitty", "iterm2"]

_CHUNK: Final = 4096  # https://sw.kovidgoyal.net/kitty/graphics-protocol/, "The transmission medium"
# https://iterm2.com/documentation-images.html is understood by these, too.
_ITERM2_PROGRAMS: Final = frozenset({"iTerm.app", "WezTerm", "mintty"})


def find_protocol(environ: Mapping[str, str]) -> Protocol | None:
    """Return how the terminal shows pictures, as the environment tells; `None` if it shows none.

    A multiplexer (tmux, screen) does not let them through, whatever it runs in.
    """
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if "TMUX" in environ or "STY" in environ or term.startswith(("screen", "tmux")):
        return None
    if "kitty" in term or "ghostty" in term or "KITTY_WINDOW_ID" in environ:
        return "kitty"
    # LC_* goes along with ssh.
    if program in _ITERM2_PROGRAMS or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return None


def encode_picture(png: bytes, protocol: Protocol) -> str:
    """Return what a terminal is sent to show a picture at the cursor."""
    data = base64.b64encode(png).decode()
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:{data}\x07\n"
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    # f=100: PNG; a=T: show it; q=2: no response, which a shell would take for typed; m: whether more follows.
    keys = ["a=T,f=100,q=2,", *[""] * (len(chunks) - 1)]
    last = len(chunks) - 1
    sent = [
        f"\x1b_G{key}m={int(number < last)};{chunk}\x1b\\"
        for number, (key, chunk) in enumerate(zip(keys, chunks, strict=True))
    ]
    return "".join(sent) + "\n"
