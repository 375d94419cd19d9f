from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolact_ros.errors import DatasetError
from yolact_ros.runtime.images.files import count_frames, find_files, read_frames, unique_names


def write_image(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((30, 40, 3), value, np.uint8))
    return path


def write_video(path, frames=5):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 40 * i, np.uint8))
    writer.release()
    return path


def test_a_folder_yields_its_images_and_videos_in_order(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        write_image(tmp_path / name) if name != "notes.txt" else (tmp_path / name).touch()
    write_video(tmp_path / "c.mp4")
    assert [path.name for path in find_files([tmp_path])] == ["a.JPG", "b.png", "c.mp4"]
    assert count_frames(find_files([tmp_path])) == 7


def test_a_file_that_is_named_twice_is_read_once(tmp_path):
    path = write_image(tmp_path / "a.png")
    assert find_files([path, tmp_path, tmp_path / "." / "a.png"]) == [path]


def test_an_empty_folder_and_no_paths_are_reported(tmp_path):
    with pytest.raises(DatasetError, match="contains no images or videos"):
        find_files([tmp_path])
    with pytest.raises(DatasetError, match="No images"):
        find_files([])


def test_frames_of_a_video_have_its_name_number_and_rate(tmp_path):
    frames = list(read_frames([write_video(tmp_path / "clip.mp4")]))
    assert [frame.name for frame in frames] == [f"clip.mp4#{i}" for i in range(5)]
    assert frames[0].rate == pytest.approx(10.0)
    assert abs(int(frames[3].image.mean()) - 120) < 6


def test_an_image_has_its_name_and_no_rate(tmp_path):
    (frame,) = read_frames([write_image(tmp_path / "a.png", 7)])
    assert (frame.name, frame.rate) == ("a.png", 0.0)
    assert (frame.image == 7).all()


@pytest.mark.parametrize("name", ["broken.png", "broken.mp4"])
def test_files_that_cannot_be_read_yield_a_frame_without_an_image(tmp_path, name):
    (tmp_path / name).write_bytes(b"neither picture nor film")
    broken, missing = read_frames([tmp_path / name, tmp_path / f"no{name}"])
    assert broken.image is None
    assert missing.image is None
    assert (broken.name, missing.name) == (name, f"no{name}")


def test_names_are_the_shortest_ends_that_differ(tmp_path):
    names = ["a/x.png", "b/x.png", "b/y.png", "c/a/x.png"]
    assert unique_names(tmp_path / name for name in names) == [
        f"{tmp_path.name}/a/x.png",
        "b/x.png",
        "y.png",
        "c/a/x.png",
    ]
    assert unique_names([]) == []
