"""Damaged data sets, results and images are either used or refused with a message."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from mutations import mutate_bytes, mutate_json

rle_masks = pytest.importorskip("pycocotools.mask")

from yolact_ros.cli.main import main
from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.errors import YolactError
from yolact_ros.runtime.depth.images import compressed_depth_in_metres
from yolact_ros.runtime.images.decoding import decode_bgr, decode_samples
from yolact_ros.variants import TABLETOP_MODEL

HEIGHT, WIDTH = 40, 60
SQUARE = [5, 5, 30, 5, 30, 20, 5, 20]


def count_refused(damaged: Iterable, use: Callable) -> int:
    """Use every damaged input; only an error with a message may prevent that."""
    refused = 0
    for content in damaged:
        try:
            use(content)
        except YolactError as error:
            refused += 1
            assert len(str(error)) > 20
    return refused


@pytest.fixture
def run(capsys):
    """Run a verb in this process; raise its error message if it refuses its input."""

    def call(*words):
        status = main([str(word) for word in words])
        message = capsys.readouterr().err
        assert status in (0, 1), words
        if status:
            raise YolactError(message)

    return call


@pytest.fixture
def import_and_load(tmp_path, run):
    """Import a data set and load every sample of the result."""

    def call(kind, *words):
        output = tmp_path / "imported"
        shutil.rmtree(output, ignore_errors=True)
        run("import-dataset", kind, *words, "-o", output)
        dataset = CocoDataset(output / "train.json", output / "train")
        samples = [dataset.load(index) for index in range(len(dataset))]
        assert sum(np.sum(~sample.crowd) for sample in samples) == sum(dataset.instances)

    return call


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


@pytest.fixture
def coco(tmp_path):
    """Write three images, and annotations with every form of mask."""
    for number in range(3):
        write_picture(tmp_path / "images" / f"{number}.png")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[5:20, 5:30] = 1
    compressed = rle_masks.encode(mask)
    changes = np.flatnonzero(np.diff(mask.ravel(order="F"))) + 1
    counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    segmentations = [
        [SQUARE],
        {"size": [HEIGHT, WIDTH], "counts": compressed["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": counts},
        [SQUARE, SQUARE],
    ]
    common = {"bbox": [5, 5, 25, 15], "area": 375}
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(3)
        ],
        "annotations": [
            {"id": i + 1, "image_id": i % 3, "category_id": 1 + i % 2, "iscrowd": int(i == 2),
             "track_id": i, "segmentation": segmentation, **common}
            for i, segmentation in enumerate(segmentations)
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "spoon"}],
    }  # fmt: skip


def test_random_coco_files_in_training(tmp_path, coco):
    pytest.importorskip("torch")
    from yolact_ros.train.config import TrainConfig
    from yolact_ros.train.loader import TrainingStream

    random = np.random.default_rng(21)
    model = replace(TABLETOP_MODEL, input_size=(64, 64), mask_rescoring=False)
    path = tmp_path / "a.json"

    def train(content):
        path.write_text(json.dumps(content))
        dataset = CocoDataset(path, tmp_path / "images")
        for index in range(len(dataset)):
            dataset.load(index)
        stream = TrainingStream(dataset, TrainConfig(model))
        for index in range(3):
            stream[index]

    train(coco)
    assert 0 < count_refused((mutate_json(coco, random) for _ in range(300)), train) < 150


@pytest.mark.parametrize("verb, least, most", [("check-dataset", 100, 200), ("import", 1, 100)])
def test_random_coco_files_in_verbs(tmp_path, coco, run, import_and_load, verb, least, most):
    random = np.random.default_rng(22)
    path = tmp_path / "a.json"

    def use(content):
        path.write_text(json.dumps(content))
        words = (path, "--images", tmp_path / "images")
        import_and_load("coco", *words) if verb == "import" else run(verb, *words)

    use(coco)
    assert least <= count_refused((mutate_json(coco, random) for _ in range(200)), use) < most


def test_random_labelme_files(tmp_path, import_and_load):
    random = np.random.default_rng(23)
    shape = {"label": "cup", "points": np.reshape(SQUARE, (-1, 2)).tolist(), "group_id": None,
             "shape_type": "polygon", "flags": {}}  # fmt: skip
    good = {
        "version": "5", "flags": {}, "imagePath": "a.png", "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH,
        "shapes": [
            shape,
            {**shape, "points": [[5, 5], [30, 20]], "group_id": 1, "shape_type": "rectangle"},
            {**shape, "points": [[15, 15], [20, 20]], "group_id": 1, "shape_type": "circle"},
        ],
    }  # fmt: skip
    write_picture(tmp_path / "set" / "a.png")

    def bring(content):
        (tmp_path / "set" / "a.json").write_text(json.dumps(content))
        import_and_load("labelme", tmp_path / "set")

    bring(good)
    assert 0 < count_refused((mutate_json(good, random) for _ in range(200)), bring) < 100


def test_random_yolo_files(tmp_path, import_and_load):
    random = np.random.default_rng(24)
    rows = b"0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.5 0.5 0.2 0.2\n0 0.2 0.2 0.6 0.2 0.6 0.6 0.1 0.6\n"
    names = b"train: images\nnames: {0: cup, 1: spoon}\n"
    root = tmp_path / "set"
    write_picture(root / "images" / "a.png")
    (root / "labels").mkdir()

    def bring(content):
        (root / "labels" / "a.txt").write_bytes(content[0])
        (root / "data.yaml").write_bytes(content[1])
        import_and_load("yolo", root)

    bring((rows, names))
    damaged = [(mutate_bytes(rows, random), names) for _ in range(120)]
    damaged += [(rows, mutate_bytes(names, random)) for _ in range(120)]
    assert 40 < count_refused(damaged, bring) < 240


def test_random_voc_files(tmp_path, import_and_load):
    random = np.random.default_rng(25)
    root = tmp_path / "set"
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:20, 5:30] = 1
    png = cv2.imencode(".png", mask)[1].tobytes()
    good = {
        "SegmentationClass/a.png": png,
        "SegmentationObject/a.png": png,
        "ImageSets/Segmentation/train.txt": b"a\n",
        "labelmap.txt": b"# label:color_rgb:parts:actions\nbackground:0,0,0::\ncup:1,1,1::\n",
    }
    write_picture(root / "JPEGImages" / "a.jpg")
    for name in good:
        (root / name).parent.mkdir(parents=True, exist_ok=True)

    def bring(content):
        for name, data in content.items():
            (root / name).write_bytes(data)
        import_and_load("voc", root)

    bring(good)
    damaged = []
    for number in range(200):
        name = list(good)[number % len(good)]
        damaged.append({**good, name: mutate_bytes(good[name], random)})
    assert 40 < count_refused(damaged, bring) < 200


def test_random_results(tmp_path, coco, tiny_bundle, run):
    from yolact_ros.evaluate.results import evaluate_results

    random = np.random.default_rng(26)
    results, annotations = tmp_path / "results.json", tmp_path / "a.json"
    annotations.write_text(json.dumps(coco))
    dataset = CocoDataset(annotations, tmp_path / "images")
    run("predict", tmp_path / "images", "--model", tiny_bundle.folder, "--json", results)
    raw = results.read_bytes()

    def evaluate(content):
        results.write_bytes(content)
        evaluate_results(results, dataset)

    evaluate(raw)
    good = json.loads(raw)
    assert any(entry["instances"] for entry in good)
    damaged = [json.dumps(mutate_json(good, random)).encode() for _ in range(200)]
    damaged += [mutate_bytes(raw, random) for _ in range(100)]
    assert 100 < count_refused(damaged, evaluate) < 300


def image_files() -> list[bytes]:
    """Encode one smooth image in every supported format."""
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    image = cv2.GaussianBlur(image, (9, 9), 0)
    wide = image.astype(np.uint16) * 200
    kinds = [(suffix, image) for suffix in (".jpg", ".png", ".bmp", ".ppm", ".tiff", ".webp")]
    kinds += [(".png", wide[:, :, 0]), (".tiff", wide), (".pgm", image[:, :, 0])]
    return [cv2.imencode(suffix, content)[1].tobytes() for suffix, content in kinds]


@pytest.mark.parametrize("read", [decode_bgr, decode_samples])
def test_random_image_files(read):
    random = np.random.default_rng(27)

    def decode(data):
        image = read(data)
        assert image.size and image.dtype in (np.uint8, np.uint16)

    files = image_files()
    for data in files:
        decode(data)
    damaged = [mutate_bytes(data, random) for data in files for _ in range(60)]
    damaged += [mutate_bytes(data[:60], random) + data[60:] for data in files for _ in range(60)]
    assert 300 < count_refused(damaged, decode) < len(damaged)


def test_random_compressed_depth():
    random = np.random.default_rng(28)
    depth = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 20).astype(np.uint16)
    good = struct.pack("<iff", 0, 100.0, 2.0) + cv2.imencode(".png", depth)[1].tobytes()
    forms = ["16UC1; compressedDepth", "32FC1; compressedDepth png", "mono16; compressedDepth"]
    odd = ["", "x", ";", "16UC1", "16UC1;;", "32FC1; compressedDepth rvl"]

    def convert(content):
        metres = compressed_depth_in_metres(*content)
        assert metres.dtype == np.float32 and not np.isinf(metres).any()

    for form in forms:
        convert((good, form))
    damaged = [(mutate_bytes(good, random), form) for form in forms for _ in range(150)]
    damaged += [(mutate_bytes(good[:12], random) + good[12:], forms[1]) for _ in range(150)]
    damaged += [(good, form) for form in odd]
    assert 400 < count_refused(damaged, convert) < len(damaged) - 10
