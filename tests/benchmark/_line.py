"""Forward connections with a delay and with caps on their rates: the program behind `line.run_line`.

Started as a script, never imported; standard library only. It shares the machine with what is measured, so the bytes
never come into this process: they go from one socket through a pipe, which is the delay, into the other (splice).
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import json
import math
import os
import select
import socket
import sys
import time
from collections import deque
from typing import Any

_QUANTUM = 128 * 1024
"""The most bytes that a connection may move before it is the next one's turn."""
_SLACK = 0.01
"""Seconds of lateness that are made up for: a line does not lose rate because this process had to wait for a core."""
_PIPE_SIZE = 1024 * 1024
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_ABORT = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER of 0 s: closing the socket resets the connection."""


class Cap:
    """A rate that is not exceeded for longer than `_SLACK`; ``free`` is when the next bytes may move."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.free = 0.0

    def take(self, count: int, now: float) -> None:
        """Note that so many bytes moved."""
        self.free = max(self.free, now - _SLACK) + count / self.rate


class Trunk:
    """What all connections share in one direction: a cap, in turns, and the count of the bytes that arrived."""

    def __init__(self, total: float) -> None:
        self.cap = Cap(total)
        self.waiting: deque[Flow] = deque()
        self.arrived = 0

    def serve(self, now: float) -> None:
        """Let those that wait read, each once in turn, as far as the cap allows."""
        for _ in range(len(self.waiting)):
            if self.cap.free > now:
                return
            self.cap.take(self.waiting.popleft().read(now), now)


class Flow:
    """One direction of a connection."""

    def __init__(self, line: Line, pair: Pair, trunk: Trunk, ends: tuple[int, int], starts: float) -> None:
        self._line, self._pair, self._trunk = line, pair, trunk
        self._source, self._sink = ends
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(PermissionError):  # a user's pipes share a limit; a short one only carries less
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._cap = Cap(line.rate)
        self._cap.free = starts
        self._queue: deque[tuple[float, int]] = deque()
        self._held = 0
        self._waiting = self._pipe_full = self._closed = False
        self.readable = self.writable = False
        self.ended = False
        self.wake = math.inf
        self.moved = 0

    def pump(self, now: float) -> None:
        """Deliver what is due, and queue for a turn to read."""
        if self._closed:
            return
        while self.writable and self._queue and self._queue[0][0] <= now:
            if not self._deliver():
                return
        if self._may_read():
            self._cap.rate = self._line.rate
            if self._cap.free <= now:
                self._waiting = True
                self._trunk.waiting.append(self)
            else:
                self._line.call_at(self._cap.free, self)
        if self.writable and self._queue:
            self._line.call_at(self._queue[0][0], self)

    def _may_read(self) -> bool:
        room = self._held < self._line.rate * self._line.delay + 8 * _QUANTUM
        return self.readable and room and not (self.ended or self._waiting or self._pipe_full)

    def read(self, now: float) -> int:
        """Take what the source has, in its turn, and return how many bytes."""
        self._waiting = False
        if self._closed:
            return 0
        try:
            count = os.splice(self._source, self._in, _QUANTUM, flags=_FLAGS)
        except BlockingIOError:
            # Either the socket is empty or the pipe is full: if something is in the pipe, look again when it is out.
            self._pipe_full = self.readable = bool(self._queue)
            return 0
        except OSError:
            self._pair.abort()
            return 0
        self.ended = not count
        self._cap.take(count, now)
        self._held += count
        self._queue.append((max(now, self._cap.free) + self._line.delay, count))
        self.pump(now)
        return count

    def _deliver(self) -> bool:
        """Send on the first of what is due; say whether there may be more to do."""
        due, count = self._queue.popleft()
        try:
            sent = os.splice(self._out, self._sink, count, flags=_FLAGS) if count else 0
        except BlockingIOError:
            self.writable = False
            self._queue.appendleft((due, count))
            return True
        except OSError:
            self._pair.abort()
            return False
        if not count:
            return self._pair.end(self)
        if sent < count:
            self._queue.appendleft((due, count - sent))
        self._held -= sent
        self.moved += sent
        self._trunk.arrived += sent
        self._pipe_full = False
        return True

    def notice_readable(self) -> None:
        self.readable, self._pipe_full = True, False

    def close(self) -> None:
        self._closed = True
        os.close(self._out)
        os.close(self._in)


class Pair:
    """A client's connection, and ours to the server."""

    def __init__(self, line: Line, client: socket.socket, server: socket.socket, now: float) -> None:
        self._line = line
        self._sockets = (client, server)
        fds = (client.fileno(), server.fileno())
        # A handshake takes a round trip before the first byte is sent.
        self.up = Flow(line, self, line.up, fds, now + 2 * line.delay)
        self.down = Flow(line, self, line.down, fds[::-1], now)
        self._ended = 0
        self.moved_before = 0

    @property
    def moved(self) -> int:
        return self.up.moved + self.down.moved

    def end(self, flow: Flow) -> bool:
        """Pass on that one side sends no more; say whether the connection lives on."""
        self._ended += 1
        if self._ended == 2:
            self._close()
            return False
        try:
            self._sockets[1 if flow is self.up else 0].shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()
            return False
        return True

    def abort(self) -> None:
        """Reset both connections."""
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._close()

    def _close(self) -> None:
        self._line.forget(self, [each.fileno() for each in self._sockets])
        for each in self._sockets:
            each.close()
        self.up.close()
        self.down.close()


class Line:
    """All connections, and the loop that serves them."""

    def __init__(self, listen: int, target: int, delay: float, rate: float, total: float) -> None:
        self.delay, self.rate = delay, rate
        self.up, self.down = Trunk(total), Trunk(total)
        self._target = ("127.0.0.1", target)
        self._epoll = select.epoll()
        self._flows: dict[int, tuple[Flow, Flow]] = {}
        self._pairs: set[Pair] = set()
        self._timers: list[tuple[float, int, Flow]] = []
        self._numbers = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", listen), backlog=512)
        self._listener.setblocking(False)
        self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._control.bind(("127.0.0.1", listen))
        self._control.setblocking(False)
        for each in (self._listener, self._control):
            self._epoll.register(each, select.EPOLLIN)

    def call_at(self, when: float, flow: Flow) -> None:
        """Pump a flow at a time, unless it is pumped before."""
        if when < flow.wake:
            flow.wake = when
            heapq.heappush(self._timers, (when, next(self._numbers), flow))

    def forget(self, pair: Pair, fds: list[int]) -> None:
        """Note that a connection is closed."""
        self._pairs.discard(pair)
        for fd in fds:
            self._epoll.unregister(fd)
            del self._flows[fd]

    def serve(self) -> None:
        """Serve for ever."""
        while True:
            # Its own time limits are whole milliseconds, which is half of a short line's delay; select's are exact.
            select.select([self._epoll], [], [], self._seconds_to_wait())
            for fd, events in self._epoll.poll(0):
                self._handle(fd, events)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                when, _, flow = heapq.heappop(self._timers)
                if when == flow.wake:
                    flow.wake = math.inf
                    flow.pump(now)
            for trunk in (self.up, self.down):
                trunk.serve(now)

    def _seconds_to_wait(self) -> float | None:
        times = [trunk.cap.free for trunk in (self.up, self.down) if trunk.waiting]
        if self._timers:
            times.append(self._timers[0][0])
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _handle(self, fd: int, events: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        elif fd == self._control.fileno():
            self._obey()
        elif fd in self._flows:  # else it was closed by an event before this one
            incoming, outgoing = self._flows[fd]
            if events & _READABLE:
                incoming.notice_readable()
            if events & _WRITABLE:
                outgoing.writable = True
            now = time.monotonic()
            incoming.pump(now)
            outgoing.pump(now)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            server = socket.socket()
            for each in (client, server):
                each.setblocking(False)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(BlockingIOError):
                server.connect(self._target)
            pair = Pair(self, client, server, time.monotonic())
            self._pairs.add(pair)
            for each, flows in ((client, (pair.up, pair.down)), (server, (pair.down, pair.up))):
                self._flows[each.fileno()] = flows
                self._epoll.register(each, _READABLE | _WRITABLE | select.EPOLLET)

    def _obey(self) -> None:
        """Do what a datagram says, and reply with what has arrived until now."""
        order, sender = self._control.recvfrom(1024)
        wanted: dict[str, Any] = json.loads(order)
        self.rate = wanted.get("rate", self.rate)
        dropped = self._drop_busiest() if wanted.get("drop") else 0
        state = {"time": time.monotonic(), "up": self.up.arrived, "down": self.down.arrived, "dropped": dropped}
        self._control.sendto(json.dumps(state).encode(), sender)

    def _drop_busiest(self) -> int:
        """Reset the connection that moved most since the last time."""
        moved = {pair: pair.moved - pair.moved_before for pair in self._pairs}
        for pair in self._pairs:
            pair.moved_before = pair.moved
        busiest = max(moved, key=lambda pair: moved[pair], default=None)
        if busiest is None or not moved[busiest]:
            return 0
        busiest.abort()
        return 1


def main() -> None:
    listen, target, delay, rate, total = sys.argv[1:]
    Line(int(listen), int(target), float(delay), float(rate), float(total)).serve()


if __name__ == "__main__":
    main()
