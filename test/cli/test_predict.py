"""`yolact predict` writes JSON, overlays and videos, and reports files that it cannot read."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolact_ros.cli.main import main
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.entries import yolo_rows

REPOSITORY = Path(__file__).resolve().parent.parent.parent

# The tiny bundle finds a cup in the left half of every image and a spoon in the right half; their
# masks are where the image is blue.


def write_image(path, *, blue=True):
    image = np.zeros((96, 120, 3), np.uint8)
    if blue:
        image[24:72, 12:108, 0] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def write_video(path, frames=3, *, blue=0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (120, 96))
    for _ in range(frames):
        writer.write(np.full((96, 120, 3), (blue, 0, 0), np.uint8))
    writer.release()
    return path


@pytest.fixture
def predict(tiny_bundle):
    """Run `yolact predict` on the tiny bundle and return its exit status."""

    def run(*words):
        words = ["predict", *map(str, words), "--model", str(tiny_bundle.folder), "--threads", "1"]
        return main(words)

    return run


def test_json_contains_boxes_scores_and_masks(predict, tmp_path):
    image = write_image(tmp_path / "in" / "blue.png")
    assert predict(image, "--json", tmp_path / "out.json") == 0
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert (entry["image"], entry["height"], entry["width"]) == ("blue.png", 96, 120)
    cup, spoon = entry["instances"]
    assert (cup["class_id"], cup["class_name"]) == (1, "cup")
    assert (spoon["class_id"], spoon["class_name"]) == (2, "spoon")
    assert cup["score"] == cup["mask_score"] == pytest.approx(0.9)
    assert cup["box"] == [0, 0, 60, 96]
    cocotools = pytest.importorskip("pycocotools.mask")
    mask = cocotools.decode(cup["segmentation"]).astype(bool)
    assert mask.shape == (96, 120)
    patch = np.zeros((96, 120), bool)
    patch[24:72, 12:66] = True
    assert (mask & patch).sum() / (mask | patch).sum() > 0.75


def test_a_folder_is_segmented_in_order_and_overlays_have_the_same_names(predict, tmp_path):
    write_image(tmp_path / "in" / "b.png")
    write_image(tmp_path / "in" / "a.jpg", blue=False)
    assert (
        predict(tmp_path / "in", "--json", tmp_path / "o.json", "--overlay", tmp_path / "o") == 0
    )
    entries = json.loads((tmp_path / "o.json").read_text())
    assert [entry["image"] for entry in entries] == ["a.jpg", "b.png"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.jpg", "b.png"]
    overlay = cv2.imread(str(tmp_path / "o" / "b.png"))
    assert overlay.shape == (96, 120, 3)
    assert (overlay[40:60, 30:40, 1:].max(axis=(0, 1)) > 0).any()  # more than blue: a class colour


def test_a_video_gives_an_entry_and_an_overlay_for_each_frame(predict, tmp_path):
    clip = write_video(tmp_path / "clip.mp4")
    status = predict(clip, "--json", tmp_path / "o.json", "--overlay", tmp_path / "o")
    assert status == 0
    entries = json.loads((tmp_path / "o.json").read_text())
    assert [entry["image"] for entry in entries] == ["clip.mp4#0", "clip.mp4#1", "clip.mp4#2"]
    capture = cv2.VideoCapture(str(tmp_path / "o" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert sum(capture.read()[0] for _ in range(4)) == 3
    capture.release()


def frame_types(path):
    return [(e["frame_type"], e["keyframe_reason"]) for e in json.loads(path.read_text())]


def test_objects_of_a_video_are_numbered_and_those_of_images_are_not(predict, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 4, blue=255)
    image = write_image(tmp_path / "blue.png")
    output = tmp_path / "out.json"
    assert predict(clip, image, "--track-hits", 2, "--json", output) == 0
    entries = json.loads(output.read_text())
    numbers = [[one["track_id"] for one in entry["instances"]] for entry in entries]
    assert numbers == [[0, 0], [1, 2], [1, 2], [1, 2], [0, 0]]
    assert predict(clip, "--no-tracking", "--json", output) == 0
    entries = json.loads(output.read_text())
    assert {one["track_id"] for entry in entries for one in entry["instances"]} == {0}


def test_frames_of_a_video_reuse_their_keyframes(tiny_video_bundle, tmp_path):
    clip, other = write_video(tmp_path / "a.mp4", 4), write_video(tmp_path / "b.mp4", 2)
    image = write_image(tmp_path / "c.png")
    words = [*map(str, (clip, other, image)), "--model", str(tiny_video_bundle.folder)]
    words += ["--keyframe-interval", "3", "--warp", "dis", "--json", str(tmp_path / "o.json")]
    assert main(["predict", *words]) == 0
    assert frame_types(tmp_path / "o.json") == [
        *(("keyframe", "first"), ("partial", None), ("partial", None), ("keyframe", "interval")),
        *(("keyframe", "first"), ("partial", None)),
        ("keyframe", None),
    ]


def test_features_that_are_too_old_are_not_used(tiny_video_bundle, tmp_path):
    clip = write_video(tmp_path / "a.mp4", 4)  # ten frames a second
    words = [str(clip), "--model", str(tiny_video_bundle.folder), "--max-feature-age", "0.15"]
    assert main(["predict", *words, "--json", str(tmp_path / "o.json")]) == 0
    reasons = [reason for _, reason in frame_types(tmp_path / "o.json")]
    assert reasons == ["first", None, "feature_age", None]


def test_with_a_model_for_single_images_every_frame_is_a_keyframe(predict, tmp_path):
    clip = write_video(tmp_path / "clip.mp4")
    assert predict(clip, "--json", tmp_path / "o.json") == 0
    assert {kind for kind, _ in frame_types(tmp_path / "o.json")} == {"keyframe"}


def test_a_warp_that_the_model_lacks_is_reported(predict, tmp_path, capsys):
    assert predict(write_video(tmp_path / "clip.mp4"), "--warp", "none") == 1
    assert "yolact export --keyframes" in capsys.readouterr().err


def test_unreadable_files_are_named_and_the_others_processed(predict, tmp_path, capsys):
    write_image(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    status = predict(tmp_path / "in", tmp_path / "gone.png", "--json", tmp_path / "o.json")
    assert status == 1
    assert [e["image"] for e in json.loads((tmp_path / "o.json").read_text())] == ["good.png"]
    text = capsys.readouterr().err
    assert "bad.png cannot be decoded" in text
    assert "gone.png cannot be read: it does not exist" in text
    assert "2 could not be read; all others were segmented" in text


@pytest.mark.parametrize("verb", ["predict", "view"])
def test_missing_files_are_named_before_the_model_is_prepared(tmp_path, capsys, verb):
    model = tmp_path / "page.pth"
    model.write_bytes(b"<html>")
    assert main([verb, str(tmp_path / "gone.png"), "--model", str(model)]) == 1
    text = capsys.readouterr().err
    assert "gone.png cannot be read: it does not exist" in text and "page.pth" not in text


# A limit on the size of files stands for that of the disk: writing fails all the same.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from yolact_ros.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_an_overlay_video_that_a_full_disk_cuts_off_is_reported(tiny_bundle, tmp_path):
    clip, out = write_video(tmp_path / "clip.mp4"), tmp_path / "o"
    words = ["predict", str(clip), "--overlay", str(out), "--model", str(tiny_bundle.folder)]
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, "500", *words, "--threads", "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f"{out / 'clip.mp4'} is incomplete; check free disk space." in result.stderr
    assert "Traceback" not in result.stderr


def test_without_json_and_overlay_the_result_is_printed(predict, tmp_path, capsys):
    assert predict(write_image(tmp_path / "a.png")) == 0
    assert "a.png: 1 cup, 1 spoon" in capsys.readouterr().out
    assert predict(tmp_path / "a.png", "--score-threshold", "0.95") == 0
    assert "a.png: nothing" in capsys.readouterr().out


def test_nothing_found_is_an_entry_without_instances(predict, tmp_path):
    path = write_image(tmp_path / "a.png")
    assert predict(path, "--score-threshold", "0.95", "--json", tmp_path / "o.json") == 0
    (entry,) = json.loads((tmp_path / "o.json").read_text())
    assert entry["instances"] == []


def test_files_of_the_same_name_stay_apart(predict, tmp_path):
    write_image(tmp_path / "x" / "a.png")
    write_image(tmp_path / "y" / "a.png")
    out = tmp_path / "o"
    assert (
        predict(tmp_path / "x", tmp_path / "y", "--json", tmp_path / "o.json", "--overlay", out)
        == 0
    )
    assert [e["image"] for e in json.loads((tmp_path / "o.json").read_text())] == [
        "x/a.png",
        "y/a.png",
    ]
    assert (out / "x" / "a.png").is_file()
    assert (out / "y" / "a.png").is_file()


def test_an_overlay_never_overwrites_its_source(predict, tmp_path, capsys):
    path = write_image(tmp_path / "in" / "a.png")
    content = path.read_bytes()
    assert predict(path, "--overlay", tmp_path / "in") == 1
    assert "would be overwritten" in capsys.readouterr().err
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "words, message",
    [
        (["--score-threshold", "1.5"], "score_threshold is 1.5; expected a value from 0.0 to 1.0"),
        (["--json", "nowhere/o.json"], "cannot be written"),
        (["--model", "nowhere"], "There is no model 'nowhere'"),
        (["--model", "no/where"], "no/where does not exist"),
    ],
)
def test_bad_arguments_are_reported(tmp_path, capsys, words, message):
    path = write_image(tmp_path / "a.png")
    assert main(["predict", str(path), *words]) == 1
    assert message in capsys.readouterr().err


def test_a_pattern_in_quotes_names_its_files(predict, tmp_path, capsys):
    for name in ("b.png", "a.png", "c.jpg"):
        write_image(tmp_path / "in" / name)
    assert predict(tmp_path / "in" / "*.png") == 0
    assert capsys.readouterr().out == "a.png: 1 cup, 1 spoon\nb.png: 1 cup, 1 spoon\n"
    assert predict(tmp_path / "in" / "*.tif") == 1
    assert "Nothing matches the pattern" in capsys.readouterr().err


def test_only_the_chosen_classes_are_found(predict, tmp_path, capsys):
    image = write_image(tmp_path / "blue.png")
    assert predict(image, "--classes", "spoon", "--json", tmp_path / "out.json") == 0
    (entry,) = json.loads((tmp_path / "out.json").read_text())
    assert [one["class_name"] for one in entry["instances"]] == ["spoon"]
    assert f"Wrote {tmp_path / 'out.json'}" in capsys.readouterr().out
    assert predict(image, "--classes", "spon") == 1
    assert "no class 'spon'; did you mean 'spoon'?" in capsys.readouterr().err


def test_text_files_are_a_data_set_of_yolo(predict, tmp_path):
    """The importer reads the same masks back from the text files."""
    rle = pytest.importorskip("pycocotools.mask")
    folder = tmp_path / "set"
    for name in ("blue.png", "black.png"):
        write_image(folder / "images" / name, blue=name == "blue.png")
    clip = write_video(tmp_path / "clip.mp4", 2, blue=255)
    words = ["--save-txt", folder / "labels", "--json", tmp_path / "out.json"]
    assert predict(folder / "images", clip, *words) == 0
    names = ["black.txt", "blue.txt", "classes.txt", "clip_0.txt", "clip_1.txt"]
    assert sorted(path.name for path in (folder / "labels").iterdir()) == names
    assert (folder / "labels" / "black.txt").read_text() == ""
    (folder / "data.yaml").write_text("train: images\nnames: [cup, spoon]\n")
    assert main(["import-dataset", "yolo", str(folder), "-o", str(tmp_path / "coco")]) == 0
    coco = json.loads((tmp_path / "coco" / "train.json").read_text())
    entries = {e["image"]: e for e in json.loads((tmp_path / "out.json").read_text())}
    assert len(coco["annotations"]) == 2
    for one, found in zip(coco["annotations"], entries["blue.png"]["instances"], strict=True):
        assert one["category_id"] == found["class_id"]
        polygons = rle.merge(rle.frPyObjects(one["segmentation"], 96, 120))
        assert rle.iou([polygons], [found["segmentation"]], [0])[0, 0] > 0.9


def test_a_mask_in_parts_stays_one_polygon(tiny):
    mask = np.zeros((20, 30), bool)
    mask[2:8, 2:8] = mask[12:18, 20:28] = mask[3:6, 15:25] = True
    found = replace(
        Detections.empty((40, 60)),
        boxes=np.zeros((1, 4), np.float32), scores=np.ones(1, np.float32),
        mask_scores=np.ones(1, np.float32), class_ids=np.zeros(1, np.int64),
        mask_rois=np.array([[10, 5, 40, 25]]), masks=(mask,),
    )  # fmt: skip
    (row,) = yolo_rows(found)
    points = np.array(row.split()[1:], float).reshape(-1, 2) * (60, 40) - 0.5
    drawn = np.zeros((40, 60), np.uint8)
    cv2.fillPoly(drawn, [np.rint(points).astype(np.int32)], 1)
    whole = np.zeros((40, 60), bool)
    whole[5:25, 10:40] = mask
    # Lines of no width between the parts cover pixels when they are drawn.
    assert not (whole & (drawn == 0)).any()
    assert ((drawn > 0) & ~whole).sum() < 40


@pytest.mark.parametrize(
    "names, text",
    [(("a.png", "a.jpg"), "a"), (("classes.png",), "classes"), (("v_1.png", "v.mp4"), "v_1")],
)
def test_no_two_images_share_a_text_file(predict, tmp_path, capsys, names, text):
    for name in names:
        path = tmp_path / "in" / name
        write_video(path) if name == "v.mp4" else write_image(path)
    assert predict(tmp_path / "in", "--save-txt", tmp_path / "txt") == 1
    assert f"would write to the text file {text}.txt" in capsys.readouterr().err


def test_a_number_sign_in_a_name_is_kept(predict, tmp_path):
    image = write_image(tmp_path / "a#1.png")
    assert predict(image, "--save-txt", tmp_path / "txt") == 0
    assert {path.name for path in (tmp_path / "txt").iterdir()} == {"a#1.txt", "classes.txt"}


@pytest.mark.parametrize("address", ["rtsp://[::1", "9999999999"])
def test_an_invalid_address_is_an_error(predict, capsys, address):
    assert predict(address) == 1
    assert address in capsys.readouterr().err


class Jpegs(BaseHTTPRequestHandler):
    """Serves as a network camera that ends after five images."""

    def do_GET(self):  # noqa: N802 - the name that http.server calls
        _, jpeg = cv2.imencode(".jpg", np.full((96, 120, 3), (255, 0, 0), np.uint8))
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=image")
        self.end_headers()
        for _ in range(5):
            head = f"--image\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")

    def log_message(self, *_):
        pass


def test_a_network_camera_is_a_video(predict, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Jpegs) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://user:secret@127.0.0.1:{http.server_address[1]}/camera/1"
        status = predict(url, "--json", tmp_path / "o.json", "--overlay", tmp_path / "o")
        http.shutdown()
        thread.join()
    assert status == 0
    entries = json.loads((tmp_path / "o.json").read_text())
    assert entries[0]["image"] == "127.0.0.1_camera_1#0"
    assert len(entries) == 5 and entries[-1]["instances"][0]["track_id"] == 1
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["127.0.0.1_camera_1.mp4"]


def test_a_missing_webcam_and_a_missing_stream_are_named(predict, capfd):
    assert predict("9999") == 1
    assert "camera9999 returns no images. Check that the camera is" in capfd.readouterr().err
    with socket.socket() as free:  # bound but not listening: connections are refused
        free.bind(("127.0.0.1", 0))
        assert predict(f"rtsp://me:secret@127.0.0.1:{free.getsockname()[1]}/x") == 1
    error = capfd.readouterr().err
    assert (
        "127.0.0.1_x returns no images. Check that it is reachable." in error
        and "secret" not in error
    )


def test_a_window_without_a_display_is_reported(predict, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    assert predict(write_image(tmp_path / "blue.png"), "--show") == 1
    assert "--show requires" in capsys.readouterr().err
