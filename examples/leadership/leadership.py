"""Am I the leader, and with which fencing token? Exit 0 and print the token and key if so, else 1.

Usage: python leadership.py [STATUS_DIR]
"""

import sys

from sidecar.client import Leadership


def main(status_dir: str = "/run/leader-sidecar") -> int:
    """Ask once; a program asks again before each thing that only a leader may do."""
    term = Leadership(status_dir).term()
    if term is None:
        print("follower")
        return 1
    print("leader", term.token, term.key)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
