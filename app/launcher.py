"""Becomes another program that does not outlive its parent.

Run as a script, by path, in a fresh interpreter: `launcher.py PARENT_PID SIGNAL ACCOUNT PROGRAM ARGUMENT…`. A
program started this way gets SIGNAL from the kernel when its parent dies, however the parent dies (Linux;
elsewhere the record of started processes is all there is). Doing this in a fork of a threaded parent would
not be safe. ACCOUNT is the name of the system account to run under, or `-` for the present one.
"""

import ctypes
import os
import pwd
import sys

_PR_SET_PDEATHSIG = 1


def become(parent: int, last_signal: int, account: str, command: list[str]) -> None:
    """Replaces this process; returns only by raising OSError, or KeyError for an unknown account."""
    if account != "-":
        entry = pwd.getpwnam(account)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, last_signal)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    os.execv(command[0], command)


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
