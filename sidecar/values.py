"""Texts of flags and environment variables to values, with sentences that say what is wrong.

Every `parse_...` takes the text that the user gave and raises `ValueError` with a sentence that
begins with that text, quoted, and says what would be right.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Word = TypeVar("Word", bound=str)

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})(ms|s|m)?")
_WHOLE = re.compile(r"[0-9]{1,12}")
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_SHOWN = 200  # characters of a wrong value that are shown
_LONGEST_ID = 253  # bytes, as Kubernetes limits the names of pods
_MILLISECONDS_PER_SECOND = 1000
_SECONDS_PER_MINUTE = 60


def quoted(text: str) -> str:
    """Return the text in quotes, cut if long, with whatever a terminal may act on escaped."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def parse_duration(text: str) -> float:
    """Return seconds from ``5``, ``0.5``, ``500ms``, ``5s`` or ``2m``."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{quoted(text)} is not a duration; give seconds (5, 0.5) or a number with a unit "
            "(500ms, 5s, 2m), not below 0"
        )
    number = float(found[1])
    if found[2] == "ms":
        return number / _MILLISECONDS_PER_SECOND
    return number * _SECONDS_PER_MINUTE if found[2] == "m" else number


def parse_whole(text: str, least: int, largest: int) -> int:
    """Return a whole number between two bounds, both included."""
    if _WHOLE.fullmatch(text) is None or not least <= int(text) <= largest:
        raise ValueError(f"{quoted(text)} is not a whole number from {least} to {largest}")
    return int(text)


def parse_choice(text: str, choices: Sequence[Word]) -> Word:
    """Return the text if it is one of a few words."""
    for word in choices:
        if word == text:
            return word
    raise ValueError(f"{quoted(text)} is unknown; use {' or '.join(choices)}")


def parse_switch(text: str) -> bool:
    """Return whether a switch is on: true, yes, on or 1; false, no, off or 0."""
    if text.lower() not in (*_YES, *_NO):
        raise ValueError(f"{quoted(text)} is neither true nor false; use one of these")
    return text.lower() in _YES


def parse_command(text: str) -> tuple[str, ...]:
    """Return the words of a command line, split as a shell would; none is run."""
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        raise ValueError(
            f"{quoted(text)} ends within a quote or after a backslash; close it"
        ) from None
    if not words or not words[0] or "\0" in text:
        raise ValueError(f"{quoted(text)} names no program; give one, such as 'pg_isready -q'")
    return words


def parse_id(text: str) -> str:
    """Return the text if it can be a candidate's id, which stands in logs, files and labels."""
    if not text:
        raise ValueError("'' is empty; give a name that no other candidate has")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{quoted(text)} is not valid UTF-8; use other characters") from None
    if not text.isprintable():
        raise ValueError(
            f"{quoted(text)} holds a newline, a control character or another that cannot be "
            "printed; leave it out"
        )
    if size > _LONGEST_ID:
        raise ValueError(f"{quoted(text)} has {size} bytes; give at most {_LONGEST_ID}")
    return text


def parse_user(text: str) -> str:
    """Return the text if it can be etcd's name of a user."""
    name, colon, _ = text.partition(":")
    if colon:  # as etcdctl takes it; what follows is a password, and must not be told to a log
        raise ValueError(
            f"{quoted(name)} is followed by a colon and a password; give the name alone, and put "
            "the password into --password-file, since every process can read flags"
        )
    if not text.isprintable() or not text:
        raise ValueError(f"{quoted(text)} is no user's name; give it in printable characters")
    return text


def parse_directory(text: str) -> Path:
    """Return a directory that exists, or that can still be made; never a symbolic link."""
    path = parse_path(text)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return path
    except OSError as exc:
        raise ValueError(f"{quoted(text)} cannot be used: {exc.strerror}") from None
    if stat.S_ISLNK(mode):
        raise ValueError(f"{quoted(text)} is a symbolic link; give the directory itself")
    if not stat.S_ISDIR(mode):
        raise ValueError(f"{quoted(text)} is not a directory; give one, or a path yet unused")
    return path


def parse_file(text: str) -> Path:
    """Return a regular file that this process may read."""
    path = parse_path(text)
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise ValueError(f"{quoted(text)} cannot be read: {exc.strerror}; give a file") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{quoted(text)} is no regular file; give one")
    if not os.access(path, os.R_OK):
        raise ValueError(
            f"{quoted(text)} cannot be read by user {os.geteuid()}, who runs this; allow it"
        )
    return path


def parse_password_file(text: str) -> Path:
    """Return a file that holds a password: text, not empty."""
    path = parse_file(text)
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{quoted(text)} is not UTF-8 text; write the password into it") from None
    if not password:
        raise ValueError(f"{quoted(text)} is empty; write the password into it")
    return path


def exposure(path: Path) -> str | None:
    """Say that everybody may read a file that should be secret, and the cure; None if not so."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & stat.S_IROTH:
        return None
    return (
        f"{quoted(str(path))} may be read by every user of this machine (mode {mode:04o}); run: "
        f"chmod o-rwx {shlex.quote(str(path))}"
    )


def parse_path(text: str) -> Path:
    """Return a path, whatever is there."""
    if not text or "\0" in text:
        raise ValueError(f"{quoted(text)} is no path; give one")
    return Path(text)
