"""Power cuts: a part of the campaign, proof that it would tell, and that the recorder sees all."""

import json
import os
import random
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last, so that the installed hashmem goes before the checkout's

from bench.reliability import power, recording  # noqa: E402 needs the path
from bench.reliability.recording import EVENT, Recording  # noqa: E402

needs_recorder = pytest.mark.skipif(bool(recording.why_not()), reason=recording.why_not())

CAMPAIGN = """
import sys
from pathlib import Path
from bench.reliability import power
{planted}
campaign = power.Campaign(Path(sys.argv[1]) / "images", {seed})
for images in range({step}, {images} + 1, {step}):
    campaign.run(images, float("inf"))
    if campaign.found["failures"]:
        break
import json
Path(sys.argv[1], "found").write_text(json.dumps(campaign.found))
"""


def campaign(folder: Path, images: int, planted: str = "", seed: int = 1) -> dict:
    """What a campaign finds that runs in a process with the recorder."""
    (folder / "images").mkdir()
    code = CAMPAIGN.format(planted=planted, seed=seed, images=images, step=min(images, 100))
    folder = folder.resolve()
    done = recording.run_under(["-P", "-c", code, str(folder)], folder)
    assert done.returncode == 0
    return json.loads((folder / "found").read_text())


@needs_recorder
def test_images_open_to_a_commit_boundary(tmp_path):
    found = campaign(tmp_path, 60)
    assert found["failures"] == []
    assert found["images"] == 60
    assert found["recordings"] >= 1
    assert len(found["patterns"]) > 5
    assert found["before"] > 0
    assert not list((tmp_path / "images").glob("*/"))


@pytest.mark.campaign
@needs_recorder
def test_many_images_open_to_a_commit_boundary(tmp_path):
    assert campaign(tmp_path, 1000, seed=2)["failures"] == []


COMPACT = """
import sys
from pathlib import Path
from bench.reliability import recording
from hashmem import MemoryStore
root, log = Path(sys.argv[1]) / "root", Path(sys.argv[1]) / "log"
root.mkdir()

def work(mark):
    with MemoryStore(root / "store") as store:
        store.put(b"a")
        store.compact()

recording.recorded(root, log, work)
"""


@needs_recorder
def test_the_name_of_a_generation_is_synced_before_current_names_it(tmp_path):
    folder = tmp_path.resolve()
    assert recording.run_under(["-P", "-c", COMPACT, str(folder)], folder).returncode == 0
    made = Recording((folder / "log").read_bytes(), folder / "root", {})
    turns = [named.event for named in made.names if named.event.other.endswith("/CURRENT")]
    assert len(turns) == 2
    for turn in turns:
        before = [
            named
            for named in made.names
            if named.event.kind == recording.CREATE
            and named.event.path.endswith(".mdb")
            and named.event.begin < turn.begin
        ]
        assert before
        assert all(named.durable < turn.begin for named in before)


# It can fail.

OPENED = """
import lmdb
opened = lmdb.open
lmdb.open = lambda *given, **options: opened(*given, **{{**options, "{}": False}})
"""


@needs_recorder
@pytest.mark.parametrize(
    "planted",
    [
        # commits that nothing syncs
        OPENED.format("sync"),
        # data that is synced, and the page that points to it that is not
        OPENED.format("metasync"),
        # names and CURRENT that nothing syncs
        "import os; os.fsync = lambda file: None",
    ],
    ids=["no sync", "no sync of the last page", "no sync of names"],
)
def test_what_is_not_synced_is_caught(tmp_path, planted):
    found = campaign(tmp_path, 1500, planted)
    assert found["lost"] + found["half"] + found["other"] > 0


# The recorder.

SHUFFLE = """
import os, sys
from pathlib import Path
from bench.reliability import recording
root, log = Path(sys.argv[1]) / "root", Path(sys.argv[1]) / "log"
root.mkdir()
(root / "before").write_bytes(b"before " * 1000)

def work(mark):
    os.chdir(root)
    (root / "folder").mkdir()
    with open("folder/one", "wb", buffering=0) as file:
        file.write(b"1" * 3000)
        os.pwrite(file.fileno(), b"2" * 2000, 5000)
        os.pwritev(file.fileno(), [b"3" * 10, b"4" * 700], 100)
        os.writev(file.fileno(), [b"x", b"yz"] * 20)
        os.ftruncate(file.fileno(), 6000)
        os.fsync(file.fileno())
    mark(7)
    with open("before", "r+b", buffering=0) as file:
        file.seek(6990)
        file.write(b"longer than it was")
    with open("before", "ab", buffering=0) as file:
        file.write(b"at the end")
        file.seek(0)
        file.write(b"at the end again")
    folder = os.open("folder", os.O_RDONLY)
    os.rename("one", "two", src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
    with open("folder/gone", "wb") as file:
        file.write(b"gone")
    with open("folder/gone", "rb") as file:
        os.unlink("folder/gone")
    with open("folder/copy", "wb") as file:
        with open("before", "rb") as other:
            __import__("shutil").copyfileobj(other, file)
    __import__("shutil").copy("before", "copied")
    Path("copied").write_bytes(b"shorter")
    os.truncate("folder/copy", 10)
    os.link("copied", "linked")
    with open("linked", "ab") as file:
        file.write(b" by another name")
    made = os.open("synced", os.O_CREAT | os.O_WRONLY | os.O_DSYNC)
    os.write(made, b"durable")
    os.posix_fallocate(made, 0, 9000)
    mark(8)

recording.recorded(root, log, work)
"""


@needs_recorder
def test_the_recorder_sees_all_that_changes_files(tmp_path):
    folder = tmp_path.resolve()
    done = recording.run_under(["-P", "-c", SHUFFLE, str(folder)], folder)
    assert done.returncode == 0
    base = {"before": b"before " * 1000}
    made = Recording((folder / "log").read_bytes(), folder / "root", base)
    assert power.differing(made.last(), recording.read_tree(folder / "root"), made.mapped) == []
    assert [number for _, number in made.marks] == [7, 8]
    chance = random.Random(1)
    nothing = made.image(made.length - 1, "none", "loose", chance)
    # The folder's own name was synced by nobody, nor anything in the root.
    assert nothing == base
    last = made.image(made.length - 1, "none", "at once", chance)
    assert last["synced"] == b"durable"
    assert last["folder/two"] == made.last()["folder/two"]
    assert last["before"] == base["before"]


# Images of logs written by hand.


class Log:
    """The bytes of a log, and how it is read."""

    def __init__(self, base: recording.Tree) -> None:
        self.base, self.bytes, self.calls = base, b"", 0

    def call(self, kind, path, other="", data=b"", offset=0, flags=0, ends=True) -> int:
        """Add a call, and return where in the log it begins."""
        begins = self.place
        self.calls += 1
        paths = [f"/root/{name}".encode() if name else b"/root" for name in (path, other)]
        sizes = [*map(len, paths), len(data)]
        self.bytes += EVENT.pack(self.calls, kind, flags, offset, *sizes, 0)
        self.bytes += b"".join(paths) + data
        self.place += 1
        if ends:
            self.bytes += EVENT.pack(self.calls, recording.END, 0, len(data), 0, 0, 0, 0)
            self.place += 1
        return begins

    place = 0

    def read(self) -> Recording:
        return Recording(self.bytes, Path("/root"), self.base)


def images(made: Recording, order: str = "at once", place: int | None = None) -> set[str]:
    """All that comes of a file "f" in many draws, as text; "-" where it is not there."""
    place = made.length - 1 if place is None else place
    chance = random.Random(5)
    found = set()
    for _ in range(100):
        for pattern in recording.PATTERNS:
            content = made.image(place, pattern, order, chance).get("f")
            found.add("-" if content is None else content.decode().replace("\0", "0"))
    return found


def test_writes_that_are_not_synced_come_in_any_order_or_not_at_all():
    log = Log({"f": b"...."})
    log.call(recording.WRITE, "f", data=b"aa", offset=0)
    log.call(recording.WRITE, "f", data=b"bb", offset=1)
    expected = {"....", "aa..", ".bb.", "abb.", "aab."}
    assert images(log.read()) == expected
    log.call(recording.SYNC, "f")
    assert images(log.read()) == {"abb."}
    before = images(log.read(), place=4)  # the sync has begun and not returned
    assert before == expected
    log.call(recording.WRITE, "f", data=b"c", offset=3)
    assert images(log.read()) == {"abb.", "abbc"}


def test_a_sync_covers_what_ended_before_it_began():
    log = Log({"f": b"...."})
    log.call(recording.WRITE, "f", data=b"aa", ends=False)
    log.call(recording.SYNC, "f")
    assert images(log.read()) == {"....", "aa.."}


def test_a_write_that_is_synced_by_itself_is_durable_when_it_returned():
    log = Log({"f": b"...."})
    log.call(recording.WRITE, "f", data=b"a", offset=3)
    begins = log.call(recording.WRITE, "f", data=b"bb", offset=2, flags=recording.SYNCED)
    assert images(log.read(), place=begins) == {"....", "...a", "..bb", "..ba"}
    assert images(log.read()) == {"..bb"}  # and nothing older comes over it


def test_files_that_grow_may_hold_zeros():
    log = Log({"f": b""})
    log.call(recording.WRITE, "f", data=b"a" * 600, offset=0)
    found = images(log.read())
    whole, empty = "a" * 600, "0" * 600
    assert {"", whole, empty, "a" * 512 + "0" * 88, "0" * 512 + "a" * 88} == found
    log.call(recording.SIZE, "f", offset=3)
    log.call(recording.SYNC, "f")
    assert images(log.read()) == {"aaa"}


def test_names_are_durable_when_their_folder_is_synced():
    log = Log({"f": b"old"})
    log.call(recording.CREATE, "g")
    log.call(recording.WRITE, "g", data=b"new")
    log.call(recording.SYNC, "g")
    log.call(recording.RENAME, "g", "f")
    for order in recording.ORDERS:
        assert images(log.read(), order) == ({"new"} if order == "at once" else {"old", "new"})
    log.call(recording.SYNC, "")
    for order in recording.ORDERS:
        assert images(log.read(), order) == {"new"}
    log.call(recording.UNLINK, "f")
    assert images(log.read(), "loose") == {"-", "new"}


def test_one_change_of_names_may_outlive_an_earlier_one_where_nothing_orders_them():
    log = Log({"f": b"old", "h": b""})
    log.call(recording.UNLINK, "h")
    log.call(recording.CREATE, "g")
    chance = random.Random(2)
    found = {
        order: {
            tuple(sorted(log.read().image(log.place - 1, pattern, order, chance)))
            for pattern in recording.PATTERNS
            for _ in range(20)
        }
        for order in recording.ORDERS
    }
    assert found["at once"] == {("f", "g")}
    assert found["journal"] == {("f", "h"), ("f",), ("f", "g")}
    assert found["loose"] == {("f", "h"), ("f",), ("f", "g"), ("f", "g", "h")}


def test_a_write_to_what_nothing_has_made_is_an_error():
    log = Log({})
    log.call(recording.WRITE, "f", data=b"a")
    with pytest.raises(ValueError, match="nothing has made"):
        log.read()


def test_files_written_through_memory_differ():
    log = Log({"f": b"", "x-lock": b""})
    log.call(recording.MAP, "f")
    log.call(recording.MAP, "x-lock")
    made = log.read()
    assert power.differing(made.last(), {"f": b"", "x-lock": b"1"}, made.mapped) == ["f"]
    assert power.differing(made.last(), {"f": b"", "x-lock": b"", "g": b""}, set()) == ["g"]
    assert power.differing({"f": b"1"}, {"f": b"2"}, set()) == ["f"]


def test_a_process_without_the_recorder_says_so():
    if "recorder.so" not in os.environ.get("LD_PRELOAD", ""):
        with pytest.raises(RuntimeError, match="not loaded"):
            recording.recorder()
