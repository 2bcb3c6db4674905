"""The command `leader-sidecar`, and `python -m sidecar`.

`check` and `retire` are decided here, before anything that takes time to import.
"""

import sys


def main() -> None:
    """Run the command line and exit."""
    arguments = sys.argv[1:]
    code: int | None = None
    if arguments[:1] == ["check"]:
        from sidecar.check import quick_check  # noqa: PLC0415 - see above

        code = quick_check(arguments[1:])
    elif arguments[:1] == ["retire"]:
        from sidecar.retire import quick_retire  # noqa: PLC0415 - see above

        code = quick_retire(arguments[1:])
    if code is None:
        from sidecar.cli.main import run  # noqa: PLC0415 - see above

        code = run(arguments)
    sys.exit(code)


if __name__ == "__main__":
    main()
