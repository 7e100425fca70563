"""The page as a browser shows it, on the real API; skipped where there is no Chromium."""

import base64
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from app import imports
from app.records import Outcome
from app.service import Service
from tests.browser import CHROMIUM, Browser, Tab, browsing, tab
from tests.serving import Served, claim, fill_pool, guide_files, make_sample, plan, submit

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Tab]:
    with tab(browser, f"http://127.0.0.1:{served.port}") as opened:
        yield opened


@pytest.fixture
def guarded_page(browser: Browser, guarded: Served) -> Iterator[Tab]:
    """Of a service that asks for keys."""
    with tab(browser, f"http://127.0.0.1:{guarded.port}") as opened:
        yield opened


def choose_guide(page: Tab) -> None:
    for name, (file_name, content, kind) in guide_files():
        raw = base64.b64encode(BytesIO(content).getvalue()).decode()
        page.run(f"""(async () => {{
          const files = new DataTransfer();
          const bytes = Uint8Array.from(atob("{raw}"), (sign) => sign.charCodeAt(0));
          files.items.add(new File([bytes], "{file_name}", {{ type: "{kind}" }}));
          document.getElementById("{name}").files = files.files;
        }})()""")
    page.run("document.querySelector('[name=top_k]').value = 2")


MOMENT = "new Promise((resolve) => setTimeout(resolve, 500))"
GALLERY = "document.querySelectorAll('#gallery li')"
CHOOSE_A_FILE = """(() => {
  const files = new DataTransfer();
  files.items.add(new File(["no image"], "a.png"));
  const input = document.getElementById("pool-files");
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
})()"""
STOP_TIMERS = "for (let timer = 1; timer < 1000; timer++) clearInterval(timer)"
VIEWER_PIXEL = "document.querySelector('#viewer canvas').getContext('2d').getImageData(2, 2, 1, 1).data[0]"


def test_a_late_picture_does_not_paint_over_another_samples(page: Tab, finished: str) -> None:
    page.open(f"/#{finished}")
    page.until(f"{GALLERY}.length === 2")
    page.run("trouble = {'samples/0/': 'hold'}")
    page.click("#gallery li:nth-child(1) button")
    page.click("#viewer button")
    page.click("#gallery li:nth-child(2) button")
    page.until(f"{VIEWER_PIXEL} === 101")
    page.run("release()")
    page.run(MOMENT)
    assert page.text("#viewer-title") == "Sample 1"
    assert page.run(VIEWER_PIXEL) == 101


def test_a_sample_is_shown_with_its_whole_seed_and_without_null(page: Tab, client: httpx.Client, finished: str) -> None:
    sample = re.search(r'"seed":(\d+)', client.get(f"/jobs/{finished}/samples").text)
    assert sample and int(sample[1]) > 2**53
    page.open(f"/#{finished}")
    page.until(f"{GALLERY}.length === 2")
    page.click("#gallery li:nth-child(1) button")
    facts = page.text("#viewer-facts")
    assert sample[1] in facts
    assert "null" not in facts


def test_a_picture_that_cannot_be_read_is_told(page: Tab, finished: str) -> None:
    page.open("/")
    page.run("trouble = {'/image$': 503}")
    page.run(f"location.hash = '{finished}'")
    page.until("document.querySelector('#gallery').innerText.includes('The picture cannot be read now.')")
    assert page.run("errors") == []


def test_an_import_opened_later_tells_why_files_were_refused(page: Tab, client: httpx.Client, service: Service) -> None:
    fill_pool(service, "late", 1)
    job = client.post("/pools/late/images", files={"images": ("a.png", b"no image")}).json()
    importing = claim(service)
    with service.database.write() as session:
        imports.imported(session, importing, [Outcome(0, None, "the file is not an image")], [])
    page.open(f"/#{job['id']}")
    page.until("!document.getElementById('job-left-out').hidden")
    page.click("#job-left-out summary")
    assert "a.png: the file is not an image" in page.text("#job-left-out")


def test_only_the_last_import_is_followed(page: Tab, pool: str) -> None:
    page.open("/")
    page.until("document.getElementById('pool').value")
    page.run(f"document.getElementById('pool').value = '{pool}'")
    streams = "requests.filter(({ path }) => path.endsWith('/events'))"
    for count in (1, 2, 3):
        page.run(CHOOSE_A_FILE)
        page.until(f"{streams}.length === {count}")
    assert page.run(f"{streams}.filter(({{ signal }}) => !signal.aborted).length") == 1


def test_an_import_that_nobody_has_begun_waits_in_words_and_among_the_recent_jobs(page: Tab) -> None:
    page.open("/")
    page.until("document.getElementById('pool').value && document.getElementById('recent').innerText")
    page.run(STOP_TIMERS)
    page.run(CHOOSE_A_FILE)
    page.until("document.getElementById('import-words').innerText === 'Waiting for a worker ...'")
    page.until("document.getElementById('recent').innerText.includes('Import into')")


def test_files_for_no_pool_are_refused_in_words(page: Tab, client: httpx.Client) -> None:
    client.delete("/pools/default").raise_for_status()
    page.open("/")
    page.until("document.getElementById('preset').value")
    page.run(CHOOSE_A_FILE)
    page.until("document.getElementById('pool-problem').innerText.includes('choose one in step 1')")


def test_a_recent_job_has_the_status_that_the_result_shows(
    page: Tab, client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool)
    page.open(f"/#{job['id']}")
    page.until("document.querySelector('#recent .status')?.innerText === 'queued'")
    page.run(STOP_TIMERS)
    plan(service, pool, 2)
    page.until("document.querySelector('#recent .status').innerText === 'running'")


def test_older_jobs_are_listed_when_asked_for(page: Tab, client: httpx.Client, pool: str) -> None:
    for _ in range(12):
        client.post(submit(client, pool)["links"]["cancel"]).raise_for_status()
    page.open("/")
    jobs = "document.querySelectorAll('#recent li')"
    page.until(f"{jobs}.length === 10 && !document.getElementById('older').hidden")
    page.run("document.getElementById('older').focus()")
    page.click("#older")
    page.until(f"{jobs}.length === 12 && document.getElementById('older').hidden")
    assert page.run(f"document.activeElement === {jobs}[11].firstElementChild")


def test_pools_that_others_make_or_delete_are_seen_when_the_page_is_looked_at_again(
    page: Tab, client: httpx.Client, pool: str
) -> None:
    page.open("/")
    page.until(f"[...document.getElementById('pool').options].some(({{ value }}) => value === '{pool}')")
    page.until("document.getElementById('preset').value && document.getElementById('recent').innerText")
    assert page.run("document.getElementById('pool').value") == "default"
    page.run(f"document.getElementById('pool').value = '{pool}'")
    client.post("/pools", json={"name": "later"}).raise_for_status()
    page.run("dispatchEvent(new Event('focus'))")
    page.until("[...document.getElementById('pool').options].some(({ value }) => value === 'later')")
    assert page.run("document.getElementById('pool').value") == pool
    client.delete(f"/pools/{pool}").raise_for_status()
    page.run("dispatchEvent(new Event('focus'))")
    page.until(f"[...document.getElementById('pool').options].every(({{ value }}) => value !== '{pool}')")
    assert page.run("document.getElementById('pool').value") == ""


def test_files_that_the_browser_kept_are_previewed_again(page: Tab, tmp_path: Path) -> None:
    page.open("/")
    page.run("addEventListener('unload', () => {})")  # so the page is loaded anew when the user comes back
    for name, (_, content, _) in guide_files():
        (tmp_path / f"{name}.png").write_bytes(content)
        page.choose(f"#{name}", tmp_path / f"{name}.png")
    page.until("document.querySelectorAll('#previews canvas').length === 1")
    page.leave("document.querySelector('nav a').click()")
    page.until("location.pathname === '/docs' && document.readyState === 'complete'")
    page.leave("history.back()")
    page.until("document.getElementById('image')?.files.length === 1")
    page.until("document.querySelectorAll('#previews canvas').length === 1")


def test_a_service_that_is_away_is_told_with_its_name(page: Tab) -> None:
    page.open("/")
    page.run("trouble = {'/readyz': 'lose'}")
    page.until("document.getElementById('ready').innerText === 'The service cannot be reached'")


def test_a_recent_job_that_was_deleted_since_is_told_when_it_is_opened(
    page: Tab, client: httpx.Client, finished: str
) -> None:
    page.open("/")
    page.until(f"document.querySelector('[data-job=\"{finished}\"]')")
    page.run("trouble = {'/jobs.limit': 503}")  # the list stays as it is
    client.delete(f"/jobs/{finished}").raise_for_status()
    page.click(f'[data-job="{finished}"]')
    page.until("!document.getElementById('no-job-problem').hidden")
    assert f"there is no job '{finished}'" in page.text("#no-job-problem")
    assert page.run("document.getElementById('job-body').hidden")


def test_a_job_of_which_no_more_is_told_does_not_stay_running(page: Tab, client: httpx.Client, pool: str) -> None:
    job = submit(client, pool)
    page.open("/")
    page.run("trouble = {'/events$': 404}")
    page.run(f"location.hash = '{job['id']}'")
    page.until("document.getElementById('no-job-problem').innerText.includes('refused by the test')")


def test_a_hidden_page_holds_no_stream_and_goes_on_where_it_was_when_it_is_shown(
    page: Tab, client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool)
    page.open(f"/#{job['id']}")
    page.until("document.getElementById('job-status').innerText === 'queued'")
    words = "document.getElementById('job-words').innerText"
    plan(service, pool, 2)
    page.until(f"{words}.includes('sampling')")
    streams = "requests.filter(({ path }) => path.endsWith('/events'))"
    with page.hidden():
        page.until(f"{streams}.every(({{ signal }}) => signal.aborted)")
        make_sample(service, claim(service), 0)
        page.run("new Promise((resolve) => setTimeout(resolve, 2000))")  # longer than the pause after a break
        assert page.run(f"{streams}.length") == 1
    page.until(f"{words}.includes('1 of 2')")
    assert page.run(f"{streams}.map(({{ headers }}) => 'Last-Event-ID' in headers)") == [False, True]


def test_another_job_in_the_address_is_opened(page: Tab, client: httpx.Client, pool: str, finished: str) -> None:
    page.open(f"/#{finished}")
    page.until("document.getElementById('job-status').innerText === 'succeeded'")
    page.until("!document.getElementById('outline-toggle').hidden")
    other = submit(client, pool)
    page.run(f"location.hash = '{other['id']}'")
    page.until("document.getElementById('job-status').innerText === 'queued'")
    assert page.run("document.getElementById('outline-toggle').hidden")
    assert page.run(f"{GALLERY}.length") == 0


def test_the_list_of_recent_jobs_follows_and_keeps_the_focus(
    page: Tab, client: httpx.Client, pool: str, finished: str
) -> None:
    page.open("/")
    page.until(f"document.querySelector('[data-job=\"{finished}\"]')")
    page.run(f"document.querySelector('[data-job=\"{finished}\"]').focus()")
    other = submit(client, pool)
    page.until(f"document.querySelector('[data-job=\"{other['id']}\"]')")
    assert page.run("document.activeElement.dataset.job") == finished


def test_a_page_that_could_not_be_filled_refuses_to_submit_and_is_filled_later(
    page: Tab, client: httpx.Client, pool: str
) -> None:
    page.open("/docs")
    page.run("localStorage.trouble = '{\"/pools\": 503}'")
    page.open("/")
    page.until("document.getElementById('pool-problem').innerText.includes('refused by the test')")
    choose_guide(page)
    page.click("#submit")
    page.until("!document.getElementById('problem').hidden")
    page.run("release()")
    page.until(f"[...document.getElementById('pool').options].some(({{ value }}) => value === '{pool}')")
    page.until("document.getElementById('pool-problem').hidden")
    assert client.get("/jobs").json()["items"] == []


def test_a_service_without_pools_asks_for_one_in_words(page: Tab, client: httpx.Client) -> None:
    client.delete("/pools/default").raise_for_status()
    page.open("/")
    page.until("document.getElementById('preset').value")
    choose_guide(page)
    page.click("#submit")
    page.until("!document.getElementById('problem').hidden")
    assert "choose one in step 1" in page.text("#problem")
    assert page.run("document.getElementById('pool').getAttribute('aria-invalid')") == "true"


def test_a_submission_whose_answer_was_lost_is_sent_again_as_the_same(
    page: Tab, client: httpx.Client, pool: str
) -> None:
    page.open("/")
    page.until("document.getElementById('pool').value && document.getElementById('preset').value")
    page.run(f"document.getElementById('pool').value = '{pool}'")
    choose_guide(page)
    page.run("trouble = {'/synthesize': 'lose'}")
    page.click("#submit")
    page.until("!document.getElementById('problem').hidden")
    page.run("trouble = {'limit=10': 503}")  # nor does the list's trouble make an accepted one fail
    page.click("#submit")
    page.until("document.getElementById('job-status').innerText === 'queued'")
    assert page.run("document.getElementById('problem').hidden")
    assert len(client.get("/jobs").json()["items"]) == 1
    page.click("#submit")
    page.until("requests.filter(({ path }) => path === '/synthesize').length === 3")
    page.until("!document.getElementById('submit').disabled")
    assert len(client.get("/jobs").json()["items"]) == 2


def test_samples_are_asked_for_once_while_many_are_finished(
    page: Tab, client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool, top_k=3)
    plan(service, pool, 3)
    page.open("/")
    page.run("trouble = {'/samples.limit': 'hold'}")
    page.run(f"location.hash = '{job['id']}'")
    lists = "requests.filter(({ path }) => path.includes('/samples?')).length"
    page.until(f"{lists} === 1")
    sampling = claim(service)
    for position in range(3):
        make_sample(service, sampling, position)
        page.until(f"document.getElementById('job-words').innerText.includes('{position + 1} of 3')")
    page.run("release()")
    page.until(f"{GALLERY}.length === 3")
    page.run(MOMENT)
    assert page.run(lists) == 2


def test_a_focus_on_what_is_hidden_moves_on(page: Tab, client: httpx.Client, pool: str) -> None:
    job = submit(client, pool)
    page.open(f"/#{job['id']}")
    page.until("document.getElementById('job-status').innerText === 'queued'")
    page.run("document.getElementById('cancel').focus()")
    page.click("#cancel")
    page.until("document.getElementById('cancel').hidden")
    assert page.run("document.activeElement.id") == "result"


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


def test_the_reference_describes_what_answers_consist_of(page: Tab) -> None:
    page.open("/docs#list_samples")
    page.until("document.querySelector('#list_samples[open]')")
    told = page.text("#list_samples")
    assert [name for name in ("SampleList", "SampleBody", "QualityBody") if name not in told] == []
    assert "string or null" in told
    assert "above 1 it shows" in told


def test_a_reference_that_cannot_be_drawn_says_so(page: Tab) -> None:
    page.open("/docs")
    page.until("document.querySelectorAll('#reference details').length > 20")
    page.run("localStorage.trouble = '{\"openapi\": 503}'")
    page.open("/docs?again")
    page.until("document.getElementById('reference').innerText.includes('cannot be shown')")
