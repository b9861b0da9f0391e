"""Keeps a real part from outliving whoever started it: run as a script, it is the part's parent.

    python guard.py <signal> <user or ""> <folder> <command> …

It starts the command, writes its process id, and waits for whichever comes first. The command ends: so does
the guard, with its code. Standard input ends, because the starter closed it or was killed: the part is
signalled, killed if that does not end it, and its folder removed. A guard that is itself killed takes the
part along (Linux).

Needs nothing but the standard library, so that it starts in a few milliseconds. Next: `process.py`, which
calls it.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

GRACE_SECONDS = 3.0
"""From the signal to SIGKILL."""
PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """What a child calls before it becomes the command: Linux then kills it when its parent ends, see
    prctl(2).
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return ask


def end(part: "subprocess.Popen[bytes]", number: int, folder: str, ending: threading.Event) -> None:
    """Once nobody holds standard input any more, end the part and leave nothing behind."""
    while os.read(0, 4096):
        pass
    ending.set()
    part.send_signal(number)
    part.send_signal(signal.SIGCONT)  # a frozen part would never see it
    try:
        part.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        part.kill()
        part.wait()
    shutil.rmtree(folder, ignore_errors=True)


def main(number: str, user: str, folder: str, *command: str) -> int:
    """Run the command; its code, or 128 and the signal that ended it."""
    part = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        user=user or None,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - no thread runs yet
    )
    sys.stdout.write(f"{part.pid}\n")
    sys.stdout.flush()
    ending = threading.Event()
    cleaner = threading.Thread(target=end, args=(part, int(number), folder, ending), daemon=True)
    cleaner.start()
    code = part.wait()
    if ending.is_set():
        cleaner.join()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # Not through the interpreter's own end: the thread may still read.
    os._exit(main(*sys.argv[1:]))
