"""The page's right side: one job with its samples, and the recent jobs."""

import re

import httpx

from app import imports
from app.records import Outcome
from app.service import Service
from tests.browser import STOP_TIMERS, Tab
from tests.serving import claim, fill_pool, make_sample, plan, submit

MOMENT = "new Promise((resolve) => setTimeout(resolve, 500))"
GALLERY = "document.querySelectorAll('#gallery li')"
# The different reds in the picture that is shown; the outline's is 255.
VIEWER_REDS = (
    "[...new Set(document.querySelector('#viewer canvas').getContext('2d').getImageData(0, 0, 512, 256).data"
    ".filter((_, i) => i % 4 === 0 && ({where})))]"
)
READ_MASK = """(async () => {
  const answer = await fetch(location.hash.replace("#", "/jobs/") + "/samples/0/mask");
  const mask = await createImageBitmap(await answer.blob());
  const context = new OffscreenCanvas(512, 256).getContext("2d");
  context.drawImage(mask, 0, 0);
  window.mask = context.getImageData(0, 0, 512, 256).data;
})()"""
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
    page.click("#viewer summary")
    facts = page.text("#viewer-facts")
    assert sample[1] in facts
    assert "null" not in facts


def test_a_samples_figures_are_beside_its_picture_with_what_they_say(page: Tab, finished: str) -> None:
    page.open(f"/#{finished}")
    page.until(f"{GALLERY}.length === 2")
    assert "retention 0.90" in page.text("#gallery")
    page.click("#gallery li:nth-child(1) button")
    assert "the labeled canal is hardly seen" in page.text("#viewer-figures")


def test_samples_are_stepped_through_at_full_width(page: Tab, finished: str) -> None:
    page.open(f"/#{finished}")
    page.until(f"{GALLERY}.length === 2")
    page.click("#gallery li:nth-child(1) button")
    page.until(f"{VIEWER_PIXEL} === 100")
    page.press("ArrowRight", 39)
    page.until(f"{VIEWER_PIXEL} === 101")
    assert page.text("#viewer-title") == "Sample 1"
    page.click("#viewer-next")
    assert page.text("#viewer-title") == "Sample 0"


def test_a_sample_can_be_compared_with_the_pool_image_at_the_same_place(page: Tab, finished: str) -> None:
    page.open(f"/#{finished}")
    page.until(f"{GALLERY}.length === 2")
    page.click("#gallery li:nth-child(1) button")
    page.until(f"{VIEWER_PIXEL} === 100")
    page.click("#viewer-unlabeled")
    page.until(f"{VIEWER_PIXEL} === 2")
    page.press("ArrowRight", 39)
    page.until(f"{VIEWER_PIXEL} === 3")
    page.click("#viewer-unlabeled")
    page.until(f"{VIEWER_PIXEL} === 101")


def test_the_outline_surrounds_the_anatomy_and_hides_none_of_it(page: Tab, finished: str) -> None:
    page.open(f"/#{finished}")
    page.until(f"{GALLERY}.length === 2")
    page.click("#gallery li:nth-child(1) button")
    page.until(f"{VIEWER_PIXEL} === 100")
    page.run(READ_MASK)
    assert sorted(page.run(VIEWER_REDS.format(where="true"))) == [100, 255]
    assert page.run(VIEWER_REDS.format(where="mask[i]")) == [100]
    page.click("#viewer-outline")
    page.until(VIEWER_REDS.format(where="true") + ".join() === '100'")


def test_a_picture_that_cannot_be_read_is_told(page: Tab, finished: str) -> None:
    page.open("/")
    page.run("trouble = {'/image$': 503}")
    page.run(f"location.hash = '{finished}'")
    told = "The picture cannot be read now: refused by the test"
    page.until(f"document.querySelector('#gallery').innerText.includes('{told}')")
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


def test_a_job_is_deleted_when_the_user_says_so_twice(page: Tab, client: httpx.Client, finished: str) -> None:
    page.open(f"/#{finished}")
    page.until("!document.getElementById('delete').hidden")
    page.run("window.confirm = (words) => { window.asked = words; return false; }")
    page.click("#delete")
    page.run("window.confirm = () => true")
    assert page.run("asked") == "Delete this job and its guides and samples?"
    assert client.get(f"/jobs/{finished}").status_code == 200
    page.click("#delete")
    page.until("!document.getElementById('no-job').hidden")
    page.until(f"!document.querySelector('[data-job=\"{finished}\"]')")
    assert client.get(f"/jobs/{finished}").status_code == 404
    assert page.run("location.hash") == ""


def test_a_job_that_cannot_be_deleted_says_why(page: Tab, finished: str) -> None:
    page.open(f"/#{finished}")
    page.until("!document.getElementById('delete').hidden")
    page.run("window.confirm = () => true; trouble = {'/jobs/': 409}")
    page.click("#delete")
    page.until("document.getElementById('job-error').innerText.includes('refused by the test')")


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


def test_samples_are_asked_for_once_while_many_are_finished(
    page: Tab, client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool, top_k=3)
    plan(service, pool, 3)
    page.open("/docs")
    page.run('localStorage.trouble = \'{"/samples.limit": "hold"}\'')
    page.open(f"/#{job['id']}")
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
