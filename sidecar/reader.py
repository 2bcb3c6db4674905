"""Takes settings out of the texts that were given, and collects all that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sidecar import values
from sidecar.errors import ConfigError
from sidecar.flags import BY_FIELD

T = TypeVar("T")


class Reader:
    """One reading of one set of texts, by the names of the fields in `sidecar.flags`.

    Raises:
        TypeError: a name is no setting.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        unknown = sorted(set(given) - set(BY_FIELD))
        if unknown:
            raise TypeError(f"not a setting: {', '.join(unknown)}")
        self.given = given
        self.warnings: list[str] = []
        self._problems: list[str] = []
        self._wrong: set[str] = set()

    def problem(self, field: str, sentence: str, source: str = "") -> None:
        """Note what is wrong with a setting, and where its value came from if not from itself."""
        self._wrong.add(field)
        self._problems.append(f"{BY_FIELD[field].flag}{source} {sentence}")

    def is_wrong(self, field: str) -> bool:
        """Say whether a problem was noted, so that nothing else is judged by this setting."""
        return field in self._wrong

    def warn(self, field: str, sentence: str) -> None:
        """Note what somebody should look at."""
        self.warnings.append(f"{BY_FIELD[field].flag} {sentence}")

    def optional(
        self, field: str, parse: Callable[[str], T], text: str | None = None, source: str = ""
    ) -> T | None:
        """Return the value given (or else `text`), or None where there is none or it is wrong."""
        text = self.given.get(field, text)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as exc:
            self.problem(field, str(exc), source if field not in self.given else "")
            return None

    def value(self, field: str, parse: Callable[[str], T]) -> T:
        """Return the value given, or the table's default where it is absent or wrong."""
        found = self.optional(field, parse)
        return parse(BY_FIELD[field].default or "") if found is None else found

    def whole(self, field: str, least: int, largest: int) -> int:
        """Return a whole number, both bounds included."""
        return self.value(field, lambda text: values.parse_whole(text, least, largest))

    def choice(self, field: str, choices: Sequence[values.Word]) -> values.Word:
        """Return one of a few words."""
        return self.value(field, lambda text: values.parse_choice(text, choices))

    def at_most_one(self, fields: Sequence[str]) -> None:
        """Note a problem if more than one of these was given."""
        found = [BY_FIELD[field].flag for field in fields if field in self.given]
        if len(found) > 1:
            self._problems.append(f"{' and '.join(found)} exclude each other; keep one of them")

    def raise_problems(self) -> None:
        """Raise `ConfigError` if there are any."""
        if self._problems:
            raise ConfigError(self._problems)
