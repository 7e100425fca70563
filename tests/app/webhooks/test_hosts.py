import pytest

from app.webhooks.hosts import receiver_of, refusal

ALLOWED = ("hooks.example.org:443", "hooks.example.org:8443", "127.0.0.1:9000", "[::1]:9000", "localhost:443")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org",
        "https://hooks.example.org/in?clinic=7#part",
        "HTTPS://Hooks.Example.ORG:443/",
        "https://hooks.example.org:8443/in",
        "http://127.0.0.1:9000/in",
        "http://[::1]:9000/in",
        "https://localhost/",
    ],
)
def test_a_receiver_that_is_named_is_allowed(url: str) -> None:
    assert refusal(url, ALLOWED) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://other.example.org/", "may not go to other.example.org:443"),
        ("https://x.hooks.example.org/", "may not go to x.hooks"),
        ("https://hooks.example.org.evil.test/", "may not go to"),
        ("https://hooks.example.org:444/", "may not go to hooks.example.org:444"),
        ("http://hooks.example.org/", "may not go to hooks.example.org:80"),
        ("http://hooks.example.org:8443/", "use https"),
        ("http://127.0.0.1:9001/", "may not go to"),
        ("http://127.1:9000/", "may not go to"),
        ("http://2130706433:9000/", "may not go to"),
        ("http://169.254.169.254/latest/meta-data", "may not go to"),
        ("https://[::ffff:127.0.0.1]:9000/", "may not go to"),
        ("https://user:secret@hooks.example.org/", "without user"),
        ("https://hooks.example.org@evil.test/", "without user"),
        ("https://evil.test\\@hooks.example.org/", "should be a URL"),
        ("https://hooks.example.org\\.evil.test/", "should be a URL"),
        ("https://evil.test#@hooks.example.org/", "should be a URL"),
        ("https://hooks.example.org:443:80/", "should be a URL"),
        ("https://hooks.example.org:/", "should be a URL"),
        ("https://hooks.example.org/\r\nX-Header: 1", "should be a URL"),
        ("https://hooks.example.org/ ", "should be a URL"),
        ("https://hoоks.example.org/", "should be a URL"),  # a Cyrillic letter
        ("//hooks.example.org/", "should be a URL"),
        ("file:///etc/passwd", "should be a URL"),
        ("ftp://hooks.example.org/", "should be a URL"),
        ("gopher://hooks.example.org:443/", "should be a URL"),
        ("", "should be a URL"),
        ("https://hooks.example.org/" + "x" * 2000, "shorten it"),
    ],
)
def test_any_other_is_refused_with_the_reason(url: str, words: str) -> None:
    assert words in (refusal(url, ALLOWED) or "")


def test_without_a_list_nobody_is_told() -> None:
    assert "PANSYNTH_WEBHOOK_HOSTS" in (refusal("https://hooks.example.org/", ()) or "")


def test_an_entry_is_a_host_and_perhaps_a_port() -> None:
    entries = ("Hooks.example.org", "hooks.example.org:8443", "[::1]:9000")
    assert [receiver_of(entry) for entry in entries] == [
        "hooks.example.org:443",
        "hooks.example.org:8443",
        "[::1]:9000",
    ]


@pytest.mark.parametrize("entry", ["hooks.example.org:0", "hooks.example.org:65536", "[::1]:99999"])
def test_an_entry_with_a_port_that_none_has_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="ports go from 1 to 65535"):
        receiver_of(entry)


@pytest.mark.parametrize("entry", ["https://hooks.example.org", "*", "*.example.org", "a b", "a:b", "host/path", "::1"])
def test_an_entry_of_another_form_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="names no host"):
        receiver_of(entry)
