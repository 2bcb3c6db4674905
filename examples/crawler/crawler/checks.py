"""What a caller may ask for: requests are checked once, by the Master that gets them first."""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit

from crawler import crawler_pb2 as pb
from crawler.problems import invalid
from crawler.records import DEFAULT_RATE, Spec

LONGEST_NAME = 253  # bytes
MOST_URLS = 16
LONGEST_URLS = 8 * 1024  # bytes, all together: dozens of resources go into one transaction
DEEPEST = 5
FASTEST = 100.0
LARGEST_PAGE = 1000

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def spec(message: pb.ResourceSpec) -> Spec:
    """Return what a message asks to be crawled.

    Raises:
        Problem: the first field that cannot be used.
    """
    name(message.name)
    if message.request_id and _REQUEST_ID.fullmatch(message.request_id) is None:
        raise invalid("request_id", "give 1 to 64 letters, digits or any of . _ : -")
    if not message.urls:
        raise invalid("urls", "give at least one URL to begin with")
    if len(message.urls) > MOST_URLS:
        raise invalid("urls", f"{len(message.urls)} URLs are too many; give at most {MOST_URLS}")
    if sum(len(url.encode()) for url in message.urls) > LONGEST_URLS:
        raise invalid("urls", f"are too long; give at most {LONGEST_URLS} bytes together")
    for url in message.urls:
        _check_url(url)
    if message.depth > DEEPEST:
        raise invalid("depth", f"{message.depth} is too deep; give at most {DEEPEST}")
    rate = message.rate or DEFAULT_RATE
    if not math.isfinite(rate) or not 0 < rate <= FASTEST:
        raise invalid("rate", f"give requests per second, above 0 and at most {FASTEST:g}")
    return Spec(message.name, tuple(message.urls), message.depth, rate)


def name(text: str) -> str:
    """Return the name of a resource.

    Raises:
        Problem: it cannot be one.
    """
    if not text:
        raise invalid("name", "is empty; give the resource a name")
    if "/" in text:
        raise invalid("name", f"{text[:80]!r} holds a slash; leave it out")
    if not text.isprintable() or len(text.encode()) > LONGEST_NAME:
        raise invalid("name", f"give at most {LONGEST_NAME} bytes of printable characters")
    return text


def page_size(number: int) -> int:
    """Return how many resources go into a page.

    Raises:
        Problem: too many.
    """
    if number > LARGEST_PAGE:
        raise invalid("page_size", f"{number} is too large; give at most {LARGEST_PAGE}")
    return number or LARGEST_PAGE


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not url.isprintable() or " " in url:
        raise invalid("urls", f"{url[:80]!r} is no http:// or https:// URL")
