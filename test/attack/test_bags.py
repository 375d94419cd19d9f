"""Damaged bags fail with an error; they never silently yield fewer results."""

from __future__ import annotations

import re
import shutil
import sqlite3

import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("onnxruntime")

from mutations import mutate_bytes
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from yolact_ros.bag.messages import typestore
from yolact_ros.bag.segmented_bag import segment_bag
from yolact_ros.errors import DatasetError, YolactError
from yolact_ros.runtime.segmenter import Segmenter

KIND = "sensor_msgs/msg/Image"
COUNT = 8


def record(folder, plugin):
    """Record a bag of images."""
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"]
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection("/image", KIND, typestore=typestore())
        for i in range(COUNT):
            header = types["std_msgs/msg/Header"](stamp(i + 1, 0), "camera")
            data = np.full(32 * 40 * 3, 200, np.uint8)
            message = types[KIND](header, 32, 40, "bgr8", 0, 120, data)
            writer.write(connection, i + 1, typestore().serialize_cdr(message, KIND))
    return folder


@pytest.fixture(params=[StoragePlugin.MCAP, StoragePlugin.SQLITE3], ids=["mcap", "sqlite3"])
def bag(request, tmp_path):
    return record(tmp_path / "rec", request.param)


@pytest.fixture
def segmenter(tiny_bundle):
    with Segmenter.open(tiny_bundle.folder) as opened:
        yield opened


@pytest.mark.parametrize(
    "pattern, text",
    [
        (r"message_count: 8", "message_count: 1000"),
        (r"message_count: 8", "message_count: eight"),
        (r"message_count: 8", "message_count: 0"),
        (r"type: sensor_msgs/msg/Image", "type: sensor_msgs/msg/CompressedImage"),
        (r"serialization_format: cdr", "serialization_format: ros"),
        (r"relative_file_paths:\n(\s*)- (.*)\n", "relative_file_paths: []\n"),
        (r"relative_file_paths:\n(\s*)- (.*)\n", r"relative_file_paths:\n\1- \2\n\1- \2\n"),
    ],
)
def test_metadata_that_contradict_the_messages(bag, segmenter, tmp_path, pattern, text):
    path = bag / "metadata.yaml"
    before = path.read_text()
    after = re.sub(pattern, text, before)
    assert after != before
    path.write_text(after)
    try:
        report = segment_bag(bag, tmp_path / "out", segmenter)
    except DatasetError:
        assert not (tmp_path / "out").exists()
    else:  # the files themselves say how many there are
        assert report.images == COUNT


def test_a_log_that_was_not_written_back(segmenter, tmp_path):
    bag = record(tmp_path / "rec", StoragePlugin.SQLITE3)
    (file,) = bag.glob("*.db3")
    log = file.with_name(f"{file.name}-wal")
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("DELETE FROM messages WHERE id = 1")
    connection.commit()
    shutil.copy(log, tmp_path / "wal")
    connection.close()
    shutil.copy(tmp_path / "wal", log)
    with pytest.raises(DatasetError, match="was interrupted.*wal"):
        segment_bag(bag, tmp_path / "out", segmenter)


def test_damaged_files_give_every_image_or_an_error(segmenter, tmp_path):
    random = np.random.default_rng(9)
    record(tmp_path / "rec", StoragePlugin.MCAP)
    good = next((tmp_path / "rec").glob("*.mcap")).read_bytes()
    refused = 0
    for number in range(100):
        path, out = tmp_path / "bad.mcap", tmp_path / f"out{number}.mcap"
        path.write_bytes(mutate_bytes(good, random))
        try:
            report = segment_bag(path, out, segmenter)
        except YolactError as error:
            refused += 1
            assert len(str(error)) > 20
            assert not out.exists()
        else:
            assert report.images >= COUNT
    assert refused > 40


@pytest.mark.parametrize("name", ["results", "results.mcap"])
def test_a_bag_may_have_the_name_of_the_journal(bag, segmenter, tmp_path, name):
    segment_bag(bag, tmp_path / name, segmenter)
    with Reader(tmp_path / name) as reader:
        assert reader.message_count == 2 * COUNT
