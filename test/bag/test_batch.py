"""Real Ray workers produce the same results as a single process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolact_ros.bag.segmented_bag import BagOptions
from yolact_ros.cli.batch import read_record
from yolact_ros.cli.main import main
from yolact_ros.config import BackendConfig, PostprocessConfig
from yolact_ros.errors import DatasetError

if importlib.util.find_spec("ray") is None:
    pytest.skip(
        "`yolact batch` is NOT tested: Ray is not installed (pip install 'yolact_ros[batch]')",
        allow_module_level=True,
    )

from pyarrow.parquet import read_table  # noqa: E402

from yolact_ros.batch.plan import find_sources, make_tasks  # noqa: E402
from yolact_ros.batch.storage import Storage, filesystem_and_path  # noqa: E402
from yolact_ros.batch.table import write_table  # noqa: E402
from yolact_ros.batch.worker import Settings, Worker  # noqa: E402

# Runs four tasks: the worker of the first dies once, that of the second whenever it is tried.
LOSE_WORKERS = """
import json, os, sys
from pathlib import Path
import yolact_ros.batch.pool as pool
from yolact_ros.batch.plan import find_sources, make_tasks
from yolact_ros.batch.storage import Storage, filesystem_and_path
from yolact_ros.batch.worker import Settings
from yolact_ros.bag.segmented_bag import BagOptions
from yolact_ros.config import BackendConfig, PostprocessConfig

folder, model = Path(sys.argv[1]), sys.argv[2]

class Mortal(pool.Worker):
    def run(self, task):
        name = task.sources[0].name
        died = (folder / f"{name}.died").exists()
        if name == "1.avi" or name == "0.avi" and not died:
            (folder / f"{name}.died").touch()
            os._exit(9)
        return super().run(task)

pool.Worker = Mortal
storage = Storage(*filesystem_and_path(str(folder / "out")))
settings = Settings(model, BackendConfig(threads=1), PostprocessConfig(), BagOptions(), storage, 0)
tasks = make_tasks(find_sources([str(folder / "clips")], storage), {})
config = pool.PoolConfig(workers=2)
with pool.connected(config) as workers:
    ended = [(t.sources[0].name, f) for t, f in pool.run_tasks(tasks, settings, config, workers)]
print(json.dumps(sorted(ended)))
"""

# Segments a folder on a server that speaks S3, twice, and gets the results.
ON_S3 = """
import os, sys
import fsspec
from moto.server import ThreadedMotoServer
from yolact_ros.cli.main import main

source, target, model = sys.argv[1:]
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
fs = fsspec.filesystem("s3")
fs.mkdir("fleet")
fs.put(source, "fleet/in", recursive=True)
words = ["batch", "s3://fleet/in", "--model", model, "--workers", "1"]
print([main([*words, "-o", place]) for place in ("s3://fleet/out", "s3://fleet/out", "s3://gone/x")])
fs.get("fleet/out", target, recursive=True)
server.stop()
"""


@pytest.fixture
def sources(tmp_path: Path, record, images) -> Path:
    """Create folders with a bag, a video, three pictures, and an unreadable file of each kind."""
    folder = tmp_path / "sources"
    (folder / "pictures" / "more").mkdir(parents=True)
    for number, image in enumerate(images[:3]):
        name = f"{number}.png" if number else "more/0.png"
        cv2.imwrite(str(folder / "pictures" / name), image)
    (folder / "pictures" / "bad.jpg").write_text("no picture")
    write_clip(folder / "pictures" / "clip.avi", images)
    (folder / "pictures" / "bad.avi").write_text("no video")
    record(spoiled=(2,)).rename(folder / "ride")
    (folder / "bad.mcap").write_text("not a bag")
    return folder


def write_clip(path: Path, images: list[np.ndarray]) -> None:
    size = images[0].shape[1::-1]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
    for image in images:
        video.write(image)
    video.release()


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a separate process, which also ends everything that Ray starts."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def batch(*words: object) -> subprocess.CompletedProcess[str]:
    return run("-m", "yolact_ros.cli.main", "batch", *words, "--workers", 2)


def test_two_workers_give_the_results_of_one_process(tmp_path, sources, tiny_bundle, capsys):
    out, model = tmp_path / "out", ("--model", tiny_bundle.folder)
    result = batch(sources, "-o", out, *model)
    assert result.returncode == 1, result.stderr
    for name in ("bad.jpg", "bad.avi", "bad.mcap", "ride: image 2"):
        assert name in result.stderr
    assert "14 images of 8 files, 4 failures" in result.stdout

    words = ["--model", str(tiny_bundle.folder), "--threads", "1"]
    copy = tmp_path / "alone" / "ride.mcap"
    assert main(["bag", str(sources / "ride"), str(copy), *words]) == 1
    assert (out / "bags" / "ride.mcap").read_bytes() == copy.read_bytes()
    pictures = sources / "pictures"
    files = [pictures / name for name in ("1.png", "2.png", "clip.avi", "more/0.png")]
    main(["predict", *map(str, files), "--json", str(tmp_path / "alone.json"), *words])
    entries = json.loads((out / "instances.json").read_text())
    rides = [entry for entry in entries if entry["image"].startswith("ride#")]
    assert [entry for entry in entries if entry not in rides] == json.loads(
        (tmp_path / "alone.json").read_text()
    )
    assert [entry["image"] for entry in rides] == [f"ride#{i}" for i in (0, 1, 3, 4, 5)]
    assert [entry["stamp"] for entry in rides] == pytest.approx([100, 101, 103, 104, 105])

    # What is complete is not done again; what is not, has changed or was removed, is.
    first = (out / "instances.json").read_bytes()
    records = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    bag, clip = (
        next(path for path in records if name in path.read_text())
        for name in ("ride#0", "clip.avi")
    )
    clip.unlink()
    (out / "bags" / "ride.mcap").unlink()
    again = batch(sources, "-o", out, *model)
    assert "(5 of them were already complete)" in again.stdout and again.returncode == 1
    assert (out / "instances.json").read_bytes() == first
    assert (out / "bags" / "ride.mcap").read_bytes() == copy.read_bytes()
    changed = {path for path, time in records.items() if path.stat().st_mtime_ns != time}
    assert changed == {bag, clip}
    assert not [*(out / "unfinished").iterdir()]


@pytest.mark.parametrize("remote", [False, True])
def test_a_table_has_a_row_for_each_instance(tmp_path, images, tiny_bundle, remote):
    """The disk may be local, or a file system that requires copies in both directions."""
    folder, out = tmp_path / "sources", str(tmp_path / "out")
    write_table(tmp_path / "none.parquet", [])
    assert read_table(tmp_path / "none.parquet").num_rows == 0
    folder.mkdir()
    write_clip(folder / "clip.avi", images)
    cv2.imwrite(str(folder / "black.png"), np.zeros((48, 60, 3), np.uint8))
    (folder / "bad.png").write_text("no picture")
    source = str(folder)
    if remote:
        source, out = f"memory:/{folder}", f"memory:/{out}"
        fs, path = filesystem_and_path(source)
        fs.put(str(folder), path, recursive=True)
    storage = Storage(*filesystem_and_path(out))
    model, backend = str(tiny_bundle.folder), BackendConfig(threads=1)
    worker = Worker(Settings(model, backend, PostprocessConfig(), BagOptions(), storage, True))
    tasks = make_tasks(find_sources([source], storage), {})
    assert [worker.run(task) for task in tasks] == ["", ""]
    worker.close()
    assert storage.names() == {name for task in tasks for name in (task.record, task.table)}
    records = [json.loads(storage.read(task.record)) for task in tasks]
    assert [record["images"] for record in records] == [1, 6]
    assert f"{folder}/bad.png" in records[0]["faults"][0]

    words = ["--model", model, "--threads", "1", "--json", str(tmp_path / "alone.json")]
    main(["predict", str(folder), *words])
    expected = [
        (entry["image"], entry["stamp"], i["class_name"], i["segmentation"])
        for entry in json.loads((tmp_path / "alone.json").read_text())
        for i in entry["instances"]
    ]
    if remote:
        storage.fs.get(storage.root, str(tmp_path / "out"), recursive=True)
    found = [
        (r["image"], r["stamp"], r["class_name"], {"size": [48, 60], "counts": r["rle"]})
        for r in read_table(tmp_path / "out" / "instances").to_pylist()
    ]
    assert sorted(found, key=str) == sorted(expected, key=str) and len(found) > 6


def test_names_of_any_bytes_are_written_to_a_table(tmp_path):
    name = os.fsdecode(b"\xff.png")
    found = {"class_name": "cup", "segmentation": {"counts": "0"}}
    write_table(tmp_path / "a.parquet", [{"image": name, "instances": [found]}])
    (row,) = read_table(tmp_path / "a.parquet").to_pylist()
    assert row["image"] == "\\udcff.png" and row["class_name"] == "cup"


def test_a_folder_of_other_files_is_left_alone(tmp_path, images, tiny_bundle, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    mine = tmp_path / "out" / "instances" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    words = ["batch", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--format", "parquet"]
    assert main([*words, "--model", str(tiny_bundle.folder), "--address", "x"]) == 1
    assert "contains files that" in capsys.readouterr().err
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [mine]


def test_results_that_only_workers_see_are_failures(
    tmp_path, images, tiny_bundle, capsys, monkeypatch
):
    """A worker that writes to its own memory or disk would report success."""
    monkeypatch.setattr("yolact_ros.batch.pool.connected", lambda config: nullcontext(1))
    monkeypatch.setattr(
        "yolact_ros.batch.pool.run_tasks", lambda tasks, *_: ((task, "") for task in tasks)
    )
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    words = ["batch", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    assert main([*words, "--model", str(tiny_bundle.folder)]) == 1
    streams = capsys.readouterr()
    assert f"a.png: its result is not in {tmp_path}/out" in streams.err
    assert "0 images of 1 files, 1 failures" in streams.out


def test_s3_gives_the_results_of_the_local_disk(tmp_path, sources, tiny_bundle):
    result = run("-c", ON_S3, sources, tmp_path / "s3", tiny_bundle.folder)
    assert result.returncode == 0, result.stderr
    assert "14 images of 8 files (7 of them were already complete), 4 failures" in result.stdout
    assert result.stdout.splitlines()[-1] == "[1, 1, 1]"
    assert "gone/x cannot be written" in result.stderr
    batch(sources, "-o", tmp_path / "out", "--model", tiny_bundle.folder)
    for name in ("instances.json", "bags/ride.mcap"):
        assert (tmp_path / "s3" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_lost_worker_is_replaced_and_its_task_done(tmp_path, images, tiny_bundle):
    (tmp_path / "clips").mkdir()
    for number in range(4):
        write_clip(tmp_path / "clips" / f"{number}.avi", images)
    result = run("-c", LOSE_WORKERS, tmp_path, tiny_bundle.folder)
    assert result.returncode == 0, result.stderr
    faults = dict(json.loads(result.stdout.splitlines()[-1]))
    assert "lost 3 times" in faults.pop("1.avi")
    assert faults == {"0.avi": "", "2.avi": "", "3.avi": ""}
    assert (tmp_path / "0.avi.died").exists()
    assert len([*(tmp_path / "out" / "parts").iterdir()]) == 3


def plan(*addresses: object, out: Path, settings=None):
    sources = find_sources(map(str, addresses), Storage(*filesystem_and_path(str(out))))
    return make_tasks(sources, settings or {})


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--address", "127.0.0.1:1"], "cannot be reached at 127.0.0.1:1"),
        (["--address", "x"], "cannot be reached at x"),
    ],
)
def test_unavailable_workers_are_refused(tmp_path, images, tiny_bundle, capsys, words, reason):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    start = ["batch", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    assert main([*start, "--model", str(tiny_bundle.folder), *words]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--gpus", "nan"], ["--workers", "9" * 20]])
def test_impossible_numbers_of_workers_are_refused(capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(["batch", "a.png", "-o", "out", *words])
    assert ended.value.code == 2
    assert "from 0 to 10000" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named_before_the_work(
    tmp_path, images, tiny_bundle, capsys
):
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    words = ["batch", str(tmp_path / "a.png"), "-o", "/proc/none"]
    assert main([*words, "--model", str(tiny_bundle.folder)]) == 1
    assert "/proc/none cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "7", '{"images": 1, "faults": [], "entries": null}'])
def test_an_altered_record_is_named(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DatasetError, match="a.json"):
        read_record(Storage(*filesystem_and_path(str(tmp_path))), "a.json")


def test_the_plan_contains_everything_once_in_order(tmp_path, sources):
    tasks = plan(sources, sources / "ride", out=sources / "out")
    names = [[source.name for source in task.sources] for task in tasks]
    assert names == [
        ["bad.mcap"],
        *(["1.png", "2.png"], ["bad.avi"], ["bad.jpg"], ["clip.avi"], ["0.png"]),
        ["ride"],
    ]
    (sources / "out").mkdir()
    (sources / "out" / "result.png").touch()
    assert plan(sources, out=sources / "out") == tasks
    keys = {task.key for task in tasks}
    assert len(keys) == len(tasks)
    assert keys.isdisjoint(
        task.key for task in plan(sources, out=sources / "out", settings={"a": 1})
    )
    (sources / "bad.mcap").write_text("still no bag")
    assert len(keys - {task.key for task in plan(sources, out=sources / "out")}) == 1


def test_nothing_to_do_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for address in (tmp_path / "empty", tmp_path / "absent", "nonsense://a"):
        with pytest.raises(DatasetError):
            plan(address, out=tmp_path / "out")


def test_pictures_are_grouped_into_tasks(tmp_path):
    for number in range(130):
        (tmp_path / f"{number:03}.png").touch()
    tasks = plan(tmp_path, out=tmp_path / "out")
    assert [len(task.sources) for task in tasks] == [64, 64, 2]


def test_copies_of_two_bags_never_have_the_same_name(tmp_path, sources):
    (sources / "ride.mcap").touch()
    with pytest.raises(DatasetError, match="2 bags"):
        plan(sources, out=tmp_path / "out")
