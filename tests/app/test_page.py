import re

import httpx
import pytest

from app.routes.page import STATIC
from app.schemas import QualityBody


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_nothing_from_elsewhere(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'self'" in page.headers["Content-Security-Policy"]
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
    for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        assert client.get(asset).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/static/main.js"])
def test_what_a_browser_has_of_the_page_is_not_sent_again(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("ETag", "Cache-Control", "Content-Security-Policy"):  # a browser replaces what it has by these
        assert again.headers[name] == first.headers[name]


def test_scripts_import_only_what_is_served(client: httpx.Client) -> None:
    for script in STATIC.glob("*.js"):
        text = client.get(f"/static/{script.name}").text
        assert "://" not in text
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert client.get(f"/static/{imported}").headers["Content-Type"].startswith("text/javascript")


def test_every_control_has_a_label_or_words() -> None:
    page = (STATIC / "index.html").read_text()
    labelled = set(re.findall(r'<label[^>]* for="([^"]+)"', page))
    inside = {
        control
        for label in re.findall(r"<label.*?</label>", page, re.S)
        for control in re.findall(r'id="([^"]+)"', label)
    }
    controls = re.findall(r'<(?:input|select)[^>]* id="([^"]+)"', page)
    assert set(controls) <= labelled | inside


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_every_element_that_a_pages_scripts_look_up_is_there(name: str) -> None:
    page = (STATIC / name).read_text()
    scripts = re.findall(r'<script[^>]* src="/static/([^"]+)"', page)
    for script in scripts:
        text = (STATIC / script).read_text()
        scripts += [imported for imported in re.findall(r'from "\./([^"]+)"', text) if imported not in scripts]
        for looked_up in re.findall(r'(?:\bat|getElementById)\("([^"]+)"\)', text):
            assert f'id="{looked_up}"' in page, (script, looked_up)
    assert scripts


def test_the_page_says_what_every_figure_of_a_sample_means() -> None:
    meanings = re.findall(r'^  (\w+): "', (STATIC / "viewer.js").read_text(), re.M)
    assert set(meanings) == set(QualityBody.model_fields)


def test_what_changes_all_the_time_is_not_read_out_but_its_outcome_is() -> None:
    page = (STATIC / "index.html").read_text()
    of_id = {name: tag for tag, name in re.findall(r'(<[a-z]+[^>]* id="([^"]+)"[^>]*>)', page)}
    for name in ("job-words", "import-words"):
        assert "aria-live" not in of_id[name]
    for name in ("job-status", "import-outcome"):
        assert 'role="status"' in of_id[name]
    assert "aria-expanded" in of_id["new-pool"]


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_a_page_has_a_main_part_and_words_for_who_runs_no_scripts(name: str) -> None:
    page = (STATIC / name).read_text()
    assert "<main" in page
    assert "<noscript>" in page


def test_the_browser_is_given_no_address_that_it_would_ask_for_without_the_key() -> None:
    for script in STATIC.glob("*.js"):
        assert not re.findall(r"\.(?:src|href) = .*\blinks\b", script.read_text()), script.name


@pytest.mark.parametrize("name", ["main.py", "..%2Fmain.py", "%2e%2e/main.py", "x.js"])
def test_only_the_pages_own_files_are_served(client: httpx.Client, name: str) -> None:
    assert client.get(f"/static/{name}").status_code == 404


def test_answers_may_not_be_framed_sniffed_or_read_from_elsewhere(client: httpx.Client) -> None:
    headers = client.get("/pools", headers={"Origin": "https://elsewhere.example"}).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "Access-Control-Allow-Origin" not in headers
