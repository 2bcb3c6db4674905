"""Becomes another program, which the kernel kills when the one that started it dies.

Run as a script between fork and exec: the parent-death signal survives the exec, nothing of it has
to run when the time comes, and so it holds for a demo that was killed without a chance to clean up.
A pipe would need a process that reads it, and code between fork and exec in the parent itself may
deadlock beside grpc's threads. The kernel ties the signal to the *thread* that forked: only the
main thread may. Standard library only, as it runs without site-packages.

Arguments: the parent's pid, the program, its arguments.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def become(parent: int, argv: list[str]) -> None:
    """Arm the signal and become `argv`; exit 1 if the parent is dead already."""
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) != 0:
        sys.exit("bound: this kernel knows no parent-death signal")
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, programs expect the default
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
