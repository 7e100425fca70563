"""What the page says of its service: whether it is ready, what key it asks for, the reference of its API."""

import pytest

from tests.browser import Tab
from tests.key_holders import as_of, holder_of, make_key
from tests.serving import Served, fill_pool, finish, submit


def test_what_is_still_as_it_was_is_not_read_out_again(page: Tab) -> None:
    page.open("/")
    page.until("document.getElementById('ready').innerText.includes('worker')")
    page.run("""{
      window.changes = 0;
      const watch = new MutationObserver((found) => { changes += found.length; });
      watch.observe(document.getElementById("ready"), { childList: true, characterData: true, subtree: true });
      requests.length = 0;
    }""")
    page.until("requests.filter(({ path }) => path === '/readyz').length >= 3")
    assert page.run("changes") == 0


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_all_text_grows_with_the_size_that_the_user_has_set_for_text(page: Tab, path: str) -> None:
    page.open(path)
    page.until("document.querySelectorAll('#preset option, #reference code').length")
    before, after = page.run("""(() => {
      const parts = [...document.body.querySelectorAll("*")];
      const sizes = () => parts.map((part) => parseFloat(getComputedStyle(part).fontSize));
      const before = sizes();
      document.documentElement.style.fontSize = "200%";
      return [before, sizes()];
    })()""")
    assert after == [2 * size for size in before]


def test_a_service_that_is_away_is_told_with_its_name(page: Tab) -> None:
    page.open("/")
    page.run("trouble = {'/readyz': 'lose'}")
    page.until("document.getElementById('ready').innerText === 'The service cannot be reached'")


def test_a_kept_key_that_cannot_be_sent_is_asked_for_anew(guarded_page: Tab) -> None:
    guarded_page.open("/docs")
    guarded_page.run("sessionStorage.setItem('pansynth-key', 'pansynth_\\u200b1')")
    guarded_page.open("/")
    guarded_page.until("document.getElementById('key').open")
    is_valid = (
        "(document.getElementById('key-input').value = {!r}, document.querySelector('#key form').checkValidity())"
    )
    assert not guarded_page.run(is_valid.format("pansynth_1\u200b"))
    assert guarded_page.run(is_valid.format(" pansynth_1-~! "))


def test_a_key_that_was_declined_is_not_asked_for_every_few_seconds(guarded_page: Tab) -> None:
    guarded_page.open("/")
    guarded_page.until("document.getElementById('key').open")
    guarded_page.click("#key button[value='']")
    guarded_page.until("!document.getElementById('pool-problem').hidden")
    seen = guarded_page.run("requests.filter(({ path }) => path === '/readyz').length")
    guarded_page.until(f"requests.filter(({{ path }}) => path === '/readyz').length >= {seen} + 2")
    assert not guarded_page.run("document.getElementById('key').open")


def test_a_refusal_that_is_still_being_read_when_the_key_is_declined_asks_no_second_time(guarded_page: Tab) -> None:
    guarded_page.open("/")
    guarded_page.until("document.getElementById('key').open")
    guarded_page.run("""(async () => {
      const { fetchWithKey } = await import("/static/key.js");
      const slow = new TransformStream();
      window.fetch = async () => new Response(slow.readable, { status: 401 });
      fetchWithKey("/jobs").then(() => { window.answered = true; });
      window.finish = () => slow.writable.close();
    })()""")
    guarded_page.click("#key button[value='']")
    guarded_page.until("!document.getElementById('pool-problem').hidden")
    guarded_page.run("finish()")
    guarded_page.until("window.answered || document.getElementById('key').open")
    assert not guarded_page.run("document.getElementById('key').open")


def test_a_picture_that_the_browser_keeps_for_a_key_is_given_to_nobody_without(
    guarded_page: Tab, guarded: Served
) -> None:
    key = make_key(guarded.service)
    with holder_of(guarded, key) as client:
        fill_pool(as_of(guarded.service, "clinic"), "held", 2)
        job = submit(client, "held", top_k=2)
        finish(as_of(guarded.service, "clinic"), "held", 2, b"the dataset")
    guarded_page.open("/docs")
    status_with = f"""fetch("/jobs/{job["id"]}/samples/0/image", {{ headers: %s }}).then((answer) => answer.status)"""
    assert guarded_page.run(status_with % f"{{ Authorization: 'Bearer {key}' }}") == 200
    assert guarded_page.run(status_with % "{}") == 401


def test_the_reference_describes_what_answers_consist_of(page: Tab) -> None:
    page.open("/docs#list_samples")
    page.until("document.querySelector('#list_samples[open]')")
    told = page.text("#list_samples")
    assert [name for name in ("SampleList", "SampleBody", "QualityBody") if name not in told] == []
    assert "string or null" in told
    assert "above 1 it shows" in told


def test_the_reference_is_read_on_a_phone_without_scrolling_sideways(page: Tab) -> None:
    page.narrow(375)
    page.open("/docs#synthesize")
    page.until("document.querySelector('#synthesize[open]')")
    tables = "[...document.querySelectorAll('#synthesize .scroll')]"
    assert page.run(f"{tables}.every((table) => table.scrollWidth <= table.clientWidth)")


def test_a_reference_that_cannot_be_drawn_says_so(page: Tab) -> None:
    page.open("/docs")
    page.until("document.querySelectorAll('#reference details').length > 20")
    page.run("localStorage.trouble = '{\"openapi\": 503}'")
    page.open("/docs?again")
    page.until("document.getElementById('reference').innerText.includes('cannot be shown')")
