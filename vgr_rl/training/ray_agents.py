"""The agents of a local Ray, which end with the driver.

Ray's other processes notice within two seconds that their driver was killed. Its two agents report the death of their
raylet first, for a minute, to a server that is gone as well.
"""

import contextlib
import re
import subprocess
from collections.abc import Iterator

import psutil


@contextlib.contextmanager
def agents_end_with_us() -> Iterator[None]:
    """Have the agents among our descendants killed when this process is."""
    agents = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if re.match("ray::.*Agent", "".join(process.cmdline()[:1])):
                agents.append(str(process.pid))
    # reading ends when we do: nobody else holds the other end of the pipe
    command = ["sh", "-c", 'read nothing; kill -9 "$@"', "sh", *agents]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        guard.kill()
        guard.communicate()
