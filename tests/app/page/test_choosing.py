"""Steps 1 to 3 of the page: pools and imports, guides, and the submission."""

import base64
import zipfile
from io import BytesIO
from pathlib import Path

import httpx

from app import imports
from app.records import Outcome
from app.service import Service
from tests.browser import STOP_TIMERS, Tab
from tests.serving import claim, guide_files

CHOOSE_FILES = """(() => {{
  const files = new DataTransfer();
  for (const name of {names}) files.items.add(new File(["no image"], name));
  const input = document.getElementById("pool-files");
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
}})()"""
CHOOSE_A_FILE = CHOOSE_FILES.format(names='["a.png"]')


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


def test_only_the_last_import_is_followed(page: Tab, pool: str) -> None:
    page.open("/")
    page.until("document.getElementById('pool').value")
    page.run(f"document.getElementById('pool').value = '{pool}'")
    streams = "requests.filter(({ path }) => path.endsWith('/events'))"
    for count in (1, 2, 3):
        page.run(CHOOSE_A_FILE)
        page.until(f"{streams}.length === {count}")
    assert page.run(f"{streams}.filter(({{ signal }}) => !signal.aborted).length") == 1


def test_more_files_than_a_request_should_carry_are_sent_as_several_imports(
    page: Tab, client: httpx.Client, service: Service, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", b"no image")
    for n in range(101):
        (tmp_path / f"{n}.png").write_bytes(b"no image")
    page.open("/")
    page.until("document.getElementById('pool').value && document.getElementById('preset').value")
    page.choose("#pool-files", *(tmp_path / name for name in ("a.zip", *(f"{n}.png" for n in range(101)))))
    page.until("document.getElementById('import-words').innerText === 'Waiting for a worker ...'")
    assert sorted(job["progress"]["total"] for job in client.get("/jobs").json()["items"]) == [0, 1, 100]
    while any(job["finished_at"] is None for job in client.get("/jobs").json()["items"]):
        step = claim(service)
        with service.database.write() as session:
            if step.kind == "unpack":
                imports.unpacked(session, step, ["b.png"], [])
            else:
                read = [Outcome(n, None, "the file is not an image") for n in range(step.first, step.last)]
                imports.imported(session, step, read, [])
    page.until("document.getElementById('import-outcome').innerText.includes('0 there already, 102 refused')")
    page.click("#import-rejected summary")
    assert [name for name in ("b.png", "0.png", "100.png") if f"{name}: the" not in page.text("#import-rejected")] == []


def test_while_files_are_sent_the_browser_asks_before_it_leaves_the_page(page: Tab) -> None:
    may_leave = "dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    page.open("/")
    page.until("document.getElementById('pool').value && document.getElementById('preset').value")
    page.run("trouble = {'/images$': 'hold'}")
    page.run(CHOOSE_A_FILE)
    page.until("requests.some(({ path }) => path.endsWith('/images'))")
    assert not page.run(may_leave)
    page.run("release()")
    page.until("document.getElementById('import-words').innerText === 'Waiting for a worker ...'")
    assert page.run(may_leave)


def test_of_several_imports_those_sent_before_one_is_refused_go_on(page: Tab, client: httpx.Client) -> None:
    page.open("/")
    page.until("document.getElementById('pool').value && document.getElementById('preset').value")
    page.run("""{
      const ask = fetch;
      fetch = (path, options) => {  // the second batch is one too many
        if (requests.some(({ method }) => method === "POST") && options?.method === "POST") trouble = { images: 429 };
        return ask(path, options);
      };
    }""")
    page.run(CHOOSE_FILES.format(names="[...Array(101).keys()].map((n) => `${n}.png`)"))
    page.until("document.getElementById('pool-problem').innerText.includes('refused by the test')")
    page.until("document.getElementById('import-words').innerText === 'Waiting for a worker ...'")
    assert [job["progress"]["total"] for job in client.get("/jobs").json()["items"]] == [100]


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


def test_pools_that_others_make_or_delete_are_seen_when_the_page_is_looked_at_again(
    page: Tab, client: httpx.Client, pool: str
) -> None:
    page.open("/")
    page.until(f"[...document.getElementById('pool').options].some(({{ value }}) => value === '{pool}')")
    page.until("document.getElementById('preset').value && document.getElementById('recent').innerText")
    assert page.run("document.getElementById('pool').value") == pool  # for the default holds no image
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


def test_a_mask_with_the_name_of_another_image_is_told_however_many_there_are(page: Tab, tmp_path: Path) -> None:
    page.open("/")
    (_, (_, image, _)), (_, (_, mask, _)) = guide_files()
    images = [tmp_path / "images" / f"{n}.png" for n in range(1, 15)]
    masks = [tmp_path / "masks" / f"{n}.png" for n in range(1, 16) if n != 14]  # one was forgotten, and one is too many
    for paths, content in ((images, image), (masks, mask)):
        paths[0].parent.mkdir()
        for path in paths:
            path.write_bytes(content)
    page.choose("#image", *images)
    page.choose("#mask", *masks)
    page.until("document.querySelectorAll('#previews figure').length === 12")
    page.until("document.getElementById('previews').innerText.includes('14.png + 15.png')")
    assert page.text("#previews").count("By their names these two are no pair.") == 1


def test_a_file_that_misses_its_box_does_not_take_the_place_of_the_page(page: Tab) -> None:
    page.open("/")
    page.until("document.getElementById('preset').value")
    assert (
        page.run("""(() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["x"], "a.png"));
      return document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    })()""")
        is False
    )


def test_a_file_that_is_gone_is_not_blamed_on_the_service(page: Tab, tmp_path: Path) -> None:
    page.open("/")
    page.until("document.getElementById('pool').value && document.getElementById('preset').value")
    for name, (_, content, _) in guide_files():
        (tmp_path / f"{name}.png").write_bytes(content)
        page.choose(f"#{name}", tmp_path / f"{name}.png")
    page.until("document.querySelectorAll('#previews canvas').length === 1")
    (tmp_path / "mask.png").unlink()
    page.click("#submit")
    page.until("!document.getElementById('problem').hidden")
    assert "mask.png is a folder, or was changed or moved" in page.text("#problem")


def test_fields_that_nobody_has_touched_are_not_called_invalid(page: Tab) -> None:
    page.open("/")
    assert page.run("document.querySelectorAll('#synthesis :invalid').length") == 0


def test_what_the_preset_sets_is_read_in_an_empty_field_as_plainly_as_the_fields_name(page: Tab) -> None:
    page.open("/")
    page.until("document.querySelector('[name=steps]').placeholder === '25'")
    placeholder, name = page.run("""[["[name=steps]", "::placeholder"], ["label:has([name=steps])"]]
      .map(([selector, part]) => getComputedStyle(document.querySelector(selector), part))
      .map(({ color, opacity }) => [color, opacity])""")
    assert placeholder == name


def test_what_is_refused_has_the_name_that_the_page_gives_it(page: Tab, pool: str) -> None:
    page.open("/")
    page.until("document.getElementById('pool').value && document.getElementById('preset').value")
    page.run(f"document.getElementById('pool').value = '{pool}'")
    choose_guide(page)
    page.run("document.querySelector('[name=top_k]').value = 4")
    page.click("#submit")
    page.until("!document.getElementById('problem').hidden")
    assert "Samples per guide is 4, but pool 'held' has 3 images" in page.text("#problem")
    assert page.run("document.querySelector('[name=top_k]').getAttribute('aria-invalid')") == "true"


def test_a_pool_is_deleted_when_the_user_says_so_twice(page: Tab, client: httpx.Client, pool: str) -> None:
    page.open("/")
    page.until("document.getElementById('pool').value")
    page.run(f"document.getElementById('pool').value = '{pool}'")
    page.run("window.confirm = (words) => { window.asked = words; return true; }")
    page.click("#delete-pool")
    page.until("document.getElementById('pool').options.length === 1")
    assert page.run("asked").startswith("Delete the pool held (3 images)?")
    assert client.get(f"/pools/{pool}").status_code == 404


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
