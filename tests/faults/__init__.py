"""Servers and hosts that misbehave on a script, for the tests of what the library guarantees."""

from __future__ import annotations

from .actions import (
    Action,
    Close,
    Corrupt,
    Fault,
    Hook,
    IgnoreRange,
    Raw,
    ReceiveSlowly,
    Reset,
    SendSlowly,
    Silence,
    Status,
    WithholdContinue,
    WrongContentRange,
)
from .hosts import UNRESOLVABLE_URL, RefusingHost, Trap, UnresponsiveHost
from .proxy import Cut, Flip, Proxy
from .server import Exchange, FaultyS3Server, Seen

__all__ = [
    "UNRESOLVABLE_URL",
    "Action",
    "Close",
    "Corrupt",
    "Cut",
    "SendSlowly",
    "Exchange",
    "Fault",
    "FaultyS3Server",
    "Flip",
    "Hook",
    "IgnoreRange",
    "Proxy",
    "Raw",
    "RefusingHost",
    "Reset",
    "Seen",
    "Silence",
    "ReceiveSlowly",
    "Status",
    "Trap",
    "UnresponsiveHost",
    "WithholdContinue",
    "WrongContentRange",
]
