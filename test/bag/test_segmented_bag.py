"""A bag is processed by the real segmenter, interrupted at every point, and read back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags")

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from yolact_ros.bag.files import copy_connection, find_images
from yolact_ros.bag.messages import DEFINITIONS, INSTANCE_ARRAY, typestore
from yolact_ros.bag.segmented_bag import BagOptions, segment_bag
from yolact_ros.cli.main import main
from yolact_ros.config import KeyframeConfig, PostprocessConfig, TrackerConfig
from yolact_ros.errors import BackendError, DatasetError
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.video.tracking import Tracker

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RESULTS = "/yolact/instances"
SUFFIXES = {"mcap": ".mcap", "sqlite3": ".db3"}


def content(path: Path) -> list[tuple[str, str, int, bytes]]:
    """Return topic, type, time and bytes of every message."""
    with Reader(path) as reader:
        messages = list(reader.messages(reader.connections))
        return [(c.topic, c.msgtype, time, bytes(data)) for c, time, data in messages]


def results(path: Path) -> list:
    messages = [data for topic, _, _, data in content(path) if topic == RESULTS]
    return [typestore().deserialize_cdr(data, INSTANCE_ARRAY) for data in messages]


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def masks_of(message) -> list[np.ndarray]:
    """Expand each instance's mask to the whole image, by a loop over the bits of its crop."""
    masks = []
    for instance in message.instances:
        mask, roi = np.zeros((message.height, message.width), bool), instance.roi
        stride = (roi.width + 7) // 8
        for y in range(roi.height):
            for x in range(roi.width):
                bit = instance.mask[y * stride + x // 8] >> (7 - x % 8) & 1
                mask[roi.y_offset + y, roi.x_offset + x] = bit
        masks.append(mask)
    return masks


@pytest.mark.parametrize("storage", SUFFIXES)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_image_is_followed_by_what_the_segmenter_finds(
    record, segmenter, images, tmp_path, storage, compressed
):
    source, target = record(storage, compressed=compressed), tmp_path / "out"
    report = segment_bag(source, target, segmenter)
    assert (report.images, report.resumed, report.failures) == (6, 0, {})
    assert set(files(target)) == {"metadata.yaml", f"out{SUFFIXES[storage]}"}
    found, tracker = results(target), Tracker(TrackerConfig())
    assert len(found) == 6
    for number, (image, message) in enumerate(zip(images, found, strict=True)):
        expected = segmenter.segment(image)
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (100 + number, 7)
        assert message.header.frame_id == "camera" and message.keyframe_stamp.sec == 100 + number
        assert (message.height, message.width, message.frame_type) == (48, 60, 0)
        assert [i.class_name for i in message.instances] == ["cup", "spoon"]
        numbers = tracker.update(expected, 100 + number + 7e-9).tolist()
        assert [i.track_id for i in message.instances] == numbers
        assert np.allclose([i.score for i in message.instances], expected.mask_scores)
        for index, mask in enumerate(masks_of(message)):
            assert np.array_equal(mask, expected[index].mask)
            assert message.instances[index].area == mask.sum()


@pytest.mark.parametrize("storage", SUFFIXES)
def test_all_other_messages_are_copied_in_their_order(record, segmenter, tmp_path, storage):
    source, target = record(storage), tmp_path / "out"
    segment_bag(source, target, segmenter)
    old, new = content(source), content(target)
    assert [message for message in new if message[0] != RESULTS] == old
    times = [time for topic, _, time, _ in new if topic == RESULTS]
    assert times == [time for topic, _, time, _ in old if topic == "/camera/image_raw"]
    with Reader(source) as before, Reader(target) as after:
        found = {c.topic: (c.msgtype, c.digest, c.msgdef.data) for c in after.connections}
        for connection in before.connections:
            expected = (connection.msgtype, connection.digest, connection.msgdef.data)
            assert found[connection.topic] == expected


@pytest.mark.parametrize("storage", SUFFIXES)
def test_the_same_bag_gives_the_same_bytes(record, segmenter, tmp_path, storage):
    source = record(storage)
    for place in ("first", "second"):
        segment_bag(source, tmp_path / place / "out", segmenter)
    assert files(tmp_path / "first" / "out") == files(tmp_path / "second" / "out")


@pytest.mark.parametrize("storage", SUFFIXES)
def test_single_files_are_read_and_written(record, segmenter, tmp_path, storage):
    suffix = SUFFIXES[storage]
    segment_bag(record(storage) / f"recorded{suffix}", tmp_path / f"out{suffix}", segmenter)
    assert len(results(tmp_path / f"out{suffix}")) == 6
    assert [file.name for file in tmp_path.glob("out*")] == [f"out{suffix}"]


class Stop(Exception):
    """Interrupts a run at a chosen image, as Ctrl-C would."""


def interrupt(source: Path, target: Path, segmenter: Segmenter, *, after: int, **options) -> None:
    def stop(done, total):
        assert total == 6
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        segment_bag(source, target, segmenter, progress=stop, **options)
    assert not target.exists()
    assert list(files(target.with_name("out.partial"))) == ["results"]


@pytest.mark.parametrize(("after", "resumed"), [(0, 0), (1, 0), (4, 3), (6, 3)])
def test_an_interrupted_run_resumes_and_yields_the_same_bytes(
    record, video_segmenter, tmp_path, after, resumed
):
    options = BagOptions(keyframes=KeyframeConfig(keyframe_interval=3, max_feature_age=10))
    source, target = record(), tmp_path / "out"
    segment_bag(source, tmp_path / "whole" / "out", video_segmenter, options=options)
    kinds = [r.frame_type for r in results(tmp_path / "whole" / "out")]
    assert kinds[0] == kinds[3] == 0 and 1 in kinds[1:3] and 1 in kinds[4:]
    interrupt(source, target, video_segmenter, after=after, options=options)
    # Images since the last keyframe are computed again, for its features are gone.
    assert segment_bag(source, target, video_segmenter, options=options).resumed == resumed
    assert files(target) == files(tmp_path / "whole" / "out")
    assert not (tmp_path / "out.partial").exists()


def test_truncated_results_are_computed_again(record, segmenter, tmp_path):
    source, target = record(), tmp_path / "out"
    interrupt(source, target, segmenter, after=4)
    journal = tmp_path / "out.partial" / "results"
    os.truncate(journal, journal.stat().st_size - 5)
    # Of four results the last is incomplete, and the third, a keyframe, starts again.
    assert segment_bag(source, target, segmenter).resumed == 2
    segment_bag(source, tmp_path / "whole" / "out", segmenter)
    assert files(target) == files(tmp_path / "whole" / "out")


def test_other_settings_of_the_model_start_again(record, segmenter, tmp_path):
    source, target = record(), tmp_path / "out"
    interrupt(source, target, segmenter, after=4)
    segmenter.postprocess = PostprocessConfig(score_threshold=0.85)
    assert segment_bag(source, target, segmenter).resumed == 0
    assert all([i.class_name for i in r.instances] == ["cup"] for r in results(target))


def test_options_of_the_output_do_not_cause_recomputation(record, segmenter, tmp_path):
    source, target = record(), tmp_path / "out"
    interrupt(source, target, segmenter, after=4)
    options = BagOptions(mask_encoding="rle", tracker=TrackerConfig(tracking=False))
    assert segment_bag(source, target, segmenter, options=options).resumed == 3
    assert all(i.mask_encoding == 3 for r in results(target) for i in r.instances)
    assert not any(i.track_id for r in results(target) for i in r.instances)


def test_images_that_cannot_be_read_are_named_and_all_others_processed(
    record, segmenter, tmp_path
):
    source, target = record(spoiled=(1, 4)), tmp_path / "out"
    report = segment_bag(source, target, segmenter)
    assert set(report.failures) == {1, 4} and "'nonsense'" in report.failures[1]
    assert [r.header.stamp.sec for r in results(target)] == [100, 102, 103, 105]
    assert sum(topic == "/camera/image_raw" for topic, *_ in content(target)) == 6


def test_a_failing_backend_loses_no_finished_results(record, tiny, tmp_path):
    prototypes = np.ones((8, 10, 1), np.float32)
    answers = tiny.host_outputs([[0, 0, 1, 1]], [[0, 0]], prototypes=prototypes)
    backend = tiny.FakeBackend(detect=answers)
    segmenter = Segmenter(backend, tiny.describe(tiny.TINY))
    source, target = record(), tmp_path / "out"

    def refuse(inputs):
        raise BackendError("The device is gone.")

    def break_down(done, total):
        backend.graphs["detect"] = refuse if done == 3 else answers

    with pytest.raises(BackendError, match="device is gone"):
        segment_bag(source, target, segmenter, progress=break_down)
    backend.graphs["detect"] = answers
    assert segment_bag(source, target, segmenter).resumed == 2
    assert [len(r.instances) for r in results(target)] == [0] * 6


def test_a_topic_that_the_bag_lacks_is_named_with_those_that_it_has(record, segmenter, tmp_path):
    source = record()
    for topic in ("/camera/depth", "/words"):
        with pytest.raises(DatasetError, match=f"no images on {topic}; .*: /camera/image_raw"):
            segment_bag(source, tmp_path / "out", segmenter, options=BagOptions(topic=topic))
    with pytest.raises(DatasetError, match="already has a topic /words"):
        segment_bag(source, tmp_path / "out", segmenter, options=BagOptions(result_topic="/words"))
    assert not list(tmp_path.glob("out*"))


def test_images_of_all_publishers_of_a_topic_are_processed(record, segmenter, tmp_path):
    """In a bag, publishers with different QoS have separate connections."""
    whole, split, qos = (
        record(),
        tmp_path / "split" / "recorded",
        Qos(
            QosHistory.KEEP_LAST,
            5,
            QosReliability.BEST_EFFORT,
            QosDurability.VOLATILE,
            *[QosTime(0, 0)] * 2,
            QosLiveliness.AUTOMATIC,
            QosTime(0, 0),
            False,
        ),
    )
    with (
        Reader(whole) as reader,
        Writer(split, version=8, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        first = {c.id: copy_connection(writer, c) for c in reader.connections}
        image = find_images(reader, None)[0]
        other = writer.add_connection(
            image.topic, image.msgtype, typestore=typestore(), offered_qos_profiles=[qos]
        )
        for number, (connection, time, data) in enumerate(reader.messages(reader.connections)):
            second = connection.id == image.id and number % 2
            writer.write(other if second else first[connection.id], time, data)
    segment_bag(whole, tmp_path / "one" / "out", segmenter)
    report = segment_bag(split, tmp_path / "two" / "out", segmenter)
    assert report.images == 6
    assert content(tmp_path / "two" / "out") == content(tmp_path / "one" / "out")
    with Reader(tmp_path / "two" / "out") as reader:
        assert sum(c.topic == image.topic for c in reader.connections) == 2


def test_an_existing_bag_is_never_touched(record, segmenter, tmp_path):
    source = record()
    (tmp_path / "out").mkdir()
    with pytest.raises(
        DatasetError, match="out already exists; remove it, or name another target"
    ):
        segment_bag(source, tmp_path / "out", segmenter)
    assert not files(tmp_path / "out")


@pytest.mark.parametrize("storage", SUFFIXES)
def test_a_damaged_bag_is_refused_with_a_message(record, segmenter, tmp_path, storage):
    source = record(storage)
    file = source / f"recorded{SUFFIXES[storage]}"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DatasetError, match="recorded is damaged: .*ros2 bag reindex"):
        segment_bag(source, tmp_path / "out", segmenter)
    (source / "metadata.yaml").unlink()
    with pytest.raises(DatasetError, match="no metadata.yaml"):
        segment_bag(source, tmp_path / "out", segmenter)


@pytest.mark.parametrize(
    ("name", "message"), [("a.mcap", "cannot be read"), ("a.txt", "not a bag")]
)
def test_a_path_that_is_no_bag_is_refused_with_a_message(segmenter, tmp_path, name, message):
    with pytest.raises(DatasetError, match=message):
        segment_bag(tmp_path / name, tmp_path / "out", segmenter)


def test_two_runs_do_not_write_the_same_bag(record, segmenter, tmp_path):
    source, target = record(), tmp_path / "out"

    def start_another(done, total):
        if done == 2:
            with pytest.raises(DatasetError, match="in use: another run"):
                segment_bag(source, target, segmenter)

    segment_bag(source, target, segmenter, progress=start_another)
    assert len(results(target)) == 6


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from yolact_ros.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("storage", SUFFIXES)
def test_a_disk_that_fills_up_is_reported_and_loses_nothing(
    record, segmenter, tiny_bundle, tmp_path, storage
):
    source, target = record(storage), tmp_path / "out"
    words = ["bag", str(source), str(target), "--model", str(tiny_bundle.folder), "--threads", "1"]
    # A limit on the size of files stands for that of the disk: writing fails all the same.
    limit = sum(len(data) for data in files(source).values()) // 2
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f"{target} cannot be written:" in result.stderr and "Traceback" not in result.stderr
    assert not target.exists()
    assert main(words) == 0
    segment_bag(source, tmp_path / "whole" / "out", segmenter)
    assert files(target) == files(tmp_path / "whole" / "out")


def test_the_command_reports_what_became_of_the_images(record, tiny_bundle, tmp_path, capsys):
    source, target = record(spoiled=(3,)), tmp_path / "out.mcap"
    words = ["bag", str(source), str(target), "--model", str(tiny_bundle.folder), "--threads", "1"]
    words += ["--topic", "camera/image_raw", "--result-topic", "found"]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert f"{target}: instances of 5 of 6 images of /camera/image_raw." in out
    assert "image 3: Image encoding 'nonsense' is not supported" in err
    assert sum(topic == "/found" for topic, *_ in content(target)) == 5


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions_are_those_of_the_messages(name):
    file = REPOSITORY / "msg" / f"{name.rpartition('/')[2]}.msg"
    assert get_types_from_msg(DEFINITIONS[name].replace(";", "\n"), name) == get_types_from_msg(
        file.read_text(), name
    )
