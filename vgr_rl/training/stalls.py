"""Notices actors whose process stands still: stopped, frozen, or cut off from the network.

Each actor has a gRPC server, whose own threads greet whoever connects, also while the actor's Python code computes,
imports or waits in a collective. So a busy process answers, and silence means that the process does not run.
"""

import contextlib
import socket
import time
from collections.abc import Mapping
from typing import Any

MISSES = 3  # in a row: a machine that is busy for half a minute is forgiven
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an empty SETTINGS frame


class Stalled(RuntimeError):
    """An actor stands still."""


def get_watched(reference: Any, name: str, actor: Any, timeout_s: float) -> Any:
    """Return a result of an actor as `ray.get` does.

    Raises:
        Stalled: the actor stands still.
    """
    import ray

    stalls = Stalls(timeout_s)
    while not ray.wait([reference], timeout=1.0)[0]:
        if why := stalls.look({name: actor}):
            raise Stalled(f"{name} stands still: {why[name]}")
    return ray.get(reference)


class Stalls:
    """Asks actors for a sign of life; `look` never blocks.

    Args:
        timeout_s: how long one has to answer, seconds; an actor stands still after `MISSES` times that.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._addresses: dict[str, tuple[str, int]] = {}
        self._open: dict[str, _Probe] = {}
        self._missed: dict[str, int] = {}
        self._next_s: dict[str, float] = {}

    def look(self, actors: Mapping[str, Any]) -> dict[str, str]:
        """Return what there is to say of those that stand still, by name."""
        for name, actor in actors.items():
            if name in self._open:
                self._read(name, self._open[name])
            elif time.monotonic() >= self._next_s.get(name, 0.0) and (address := self._address(name, actor)):
                self._open[name] = _Probe(address)
        silent = [name for name, missed in self._missed.items() if missed >= MISSES and name in actors]
        return {name: self._reason(*self._addresses[name]) for name in silent}

    def _reason(self, host: str, port: int) -> str:
        return (
            f"its process at {host}:{port} is stopped, frozen or cut off from the network: no answer for "
            f"{MISSES * self._timeout_s:g} s, {MISSES} times guards.ping_timeout_s"
        )

    def _read(self, name: str, probe: "_Probe") -> None:
        if probe.answered():
            self._missed[name] = 0
            self._next_s[name] = time.monotonic() + self._timeout_s / 3
        elif time.monotonic() - probe.since_s > self._timeout_s:
            self._missed[name] = self._missed.get(name, 0) + 1
        else:
            return
        probe.close()
        del self._open[name]

    def _address(self, name: str, actor: Any) -> tuple[str, int] | None:
        """Return where an actor listens, None while it has no process."""
        import ray

        if not self._missed.get(name, 0):  # it may have been started again elsewhere
            found = ray._private.state.actors(actor._actor_id.hex()).get("Address", {})
            if not found.get("Port"):
                return None
            self._addresses[name] = found["IPAddress"], found["Port"]
        return self._addresses[name]


class _Probe:
    """A connection that was begun and not answered yet."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.since_s = time.monotonic()
        self._unsent = _HELLO
        self._socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):  # it is under way, or `answered` will say
            self._socket.connect(address)

    def answered(self) -> bool:
        """Return whether anything came back: a greeting, or the word that nobody listens any more."""
        try:
            if self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            self._socket.recv(1)
        except ConnectionError:
            return True
        except OSError:  # nothing yet, or no way there
            return False
        return True

    def close(self) -> None:
        """Give the connection up."""
        self._socket.close()
