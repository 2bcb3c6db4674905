"""Links and titles of pages, good and bad."""

import pytest
from crawler.links import LINKS_PER_PAGE, decoded, extract, is_fetchable, is_same_host, joined
from hypothesis import given
from hypothesis import strategies as st

PAGE = "http://example.test/dir/page"


def links(html: str) -> tuple[str, ...]:
    return extract(html, PAGE).links


def test_links_of_the_same_host_are_found_once_each_in_their_order() -> None:
    found = links('<a href="b">1</a><a href="/a#x">2</a><a href="b#y">3</a><area href="?q=1">')
    assert found == (
        "http://example.test/dir/b",
        "http://example.test/a",
        "http://example.test/dir/page?q=1",
    )


@pytest.mark.parametrize(
    "href",
    [
        "http://other.test/",
        "//other.test/x",
        "http://example.test:8080/",
        "http://sub.example.test/",
        "mailto:a@example.test",
        "javascript:alert(1)",
        "ftp://example.test/x",
        "http://user:secret@example.test/x",
        "http://[broken/",
        "http://example.test:99999/",
        "#here",
        "page",
        "",
        "/" + "x" * 3000,
        "/a\x01b",
    ],
)
def test_a_link_that_leads_elsewhere_or_nowhere_is_left_out(href: str) -> None:
    assert links(f'<a href="{href}">x</a>') == ()


def test_http_and_https_of_a_name_are_one_host() -> None:
    assert is_same_host("http://example.test/", "https://EXAMPLE.test:443/x")
    assert not is_same_host("http://example.test:8080/", "http://example.test/")
    assert not is_same_host("nonsense", "nonsense")


def test_the_base_of_a_page_counts() -> None:
    assert links('<base href="/other/"><a href="x">x</a>') == ("http://example.test/other/x",)
    assert links('<base href="mailto:x"><a href="x">x</a>') == ("http://example.test/dir/x",)


def test_the_title_is_one_line_and_short() -> None:
    found = extract("<title> A\n  title </title><svg><title>no</title></svg>", PAGE)
    assert found.title == "A title"
    assert len(extract("<title>" + "x" * 5000, PAGE).title) == 200


def test_a_page_with_very_many_links_gives_only_the_first() -> None:
    html = "".join(f'<a href="/{number}">x</a>' for number in range(3 * LINKS_PER_PAGE))
    found = links(html)
    assert len(found) == LINKS_PER_PAGE
    assert found[-1] == f"http://example.test/{LINKS_PER_PAGE - 1}"


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("utf-8", "ä"),
        ("utf8", "ä"),
        (None, "ä"),
        ("latin-1", "Ã¤"),
        ("none such", "ä"),
        ("hex", "ä"),
    ],
)
def test_a_body_is_read_in_its_charset_or_as_utf_8(charset: str | None, text: str) -> None:
    assert decoded("ä".encode(), charset) == text


@given(
    st.binary(max_size=500), st.sampled_from([None, "utf-16", "cp1252", "idna", "unicode_escape"])
)
def test_no_bytes_break_it(body: bytes, charset: str | None) -> None:
    text = decoded(body, charset)
    for link in extract(f'<a href="{text}<title>{text}', PAGE).links:
        assert is_same_host(link, PAGE)
        assert is_fetchable(link)


@given(st.text(max_size=200))
def test_no_reference_breaks_it(href: str) -> None:
    link = joined(PAGE, href)
    assert link is None or is_fetchable(link)
