"""app/pools.py, over both kinds of database."""

from datetime import UTC, datetime

import pytest

from app import pools
from app.database import Database
from app.errors import BadCursor, ImageNotFound, PoolExists, PoolNotFound
from app.tables import PoolImage


def add_images(db: Database, pool_id: str, count: int) -> None:
    with db.write() as session:
        for n in range(count):
            now = datetime.now(UTC)
            session.add(
                PoolImage(pool_id=pool_id, name=f"{n}.png", width=5, height=4, sha256=f"{n:064}", created_at=now)
            )


def make(db: Database, name: str) -> str:
    with db.write() as session:
        return pools.create(session, name).id


def test_a_name_is_given_once(db: Database) -> None:
    make(db, "held")
    with pytest.raises(PoolExists, match="'held'"):
        make(db, "held")


def test_a_pool_that_is_not_there_is_named(db: Database) -> None:
    with db.write() as session:
        for ask in (pools.find, pools.images, pools.delete):
            with pytest.raises(PoolNotFound, match="'nobody'"):
                ask(session, "nobody")


def test_pools_come_by_name_page_by_page(db: Database) -> None:
    for name in ("c", "a", "b"):
        make(db, name)
    with db.read() as session:
        first, cursor = pools.list_(session, limit=2)
        assert [pool.name for pool in first] == ["a", "b"]
        last, end = pools.list_(session, limit=2, cursor=cursor)
        assert ([pool.name for pool in last], end) == (["c"], None)


def test_images_are_counted_listed_and_found(db: Database) -> None:
    full, empty = make(db, "full"), make(db, "empty")
    add_images(db, full, 5)
    with db.read() as session:
        assert pools.image_counts(session, pools.list_(session)[0]) == {full: 5, empty: 0}
        page, cursor = pools.images(session, "full", limit=3)
        rest, end = pools.images(session, "full", limit=3, cursor=cursor)
        assert [image.name for image in [*page, *rest]] == [f"{n}.png" for n in range(5)]
        assert end is None
        assert pools.find_image(session, "full", page[0].id).name == "0.png"


def test_an_image_is_found_in_its_own_pool_alone(db: Database) -> None:
    add_images(db, make(db, "full"), 1)
    make(db, "empty")
    with db.read() as session:
        image = pools.images(session, "full")[0][0]
        for name, image_id in (("empty", image.id), ("full", image.id + 1), ("full", -1), ("full", 1 << 80)):
            with pytest.raises(ImageNotFound):
                pools.find_image(session, name, image_id)


def test_a_made_up_cursor_is_refused(db: Database) -> None:
    make(db, "full")
    with db.read() as session:
        for cursor in ("x", "-1", "1" * 30, "١"):
            with pytest.raises(BadCursor):
                pools.images(session, "full", cursor=cursor)


def test_a_deleted_pool_takes_its_images_along_and_its_name_is_free(db: Database) -> None:
    old = make(db, "held")
    add_images(db, old, 3)
    with db.write() as session:
        assert pools.delete(session, "held") == f"pools/{old}/"
    new = make(db, "held")
    assert new != old
    with db.read() as session:
        assert pools.image_counts(session, [pools.find(session, "held")]) == {new: 0}
