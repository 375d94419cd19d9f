"""The code on docs/reading_masks.md decodes the bytes of real messages."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from array import array
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from ament_index_python.packages import get_package_prefix
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from yolact_ros.msg import Instance, InstanceArray
from yolact_ros.ros.messages.instances import message_from_detections
from yolact_ros.runtime.detections import Detections

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reading_masks.md"
SHAPES = ((7, 13), (1, 1), (5, 16), (9, 8), (0, 0), (3, 33), (4, 6), (2, 9))

# Reads instances as `width height x y encoding length mask`, writes their masks, then `is_at` of
# every pixel of a frame of 64x32.
MAIN = """
#include <fstream>
int main(int, char ** argv)
{
  std::ifstream in(argv[1], std::ios::binary);
  std::ofstream out(argv[2], std::ios::binary);
  uint32_t head[6];
  while (in.read(reinterpret_cast<char *>(head), sizeof(head))) {
    Instance instance;
    instance.roi.width = head[0];
    instance.roi.height = head[1];
    instance.roi.x_offset = head[2];
    instance.roi.y_offset = head[3];
    instance.mask_encoding = static_cast<uint8_t>(head[4]);
    instance.mask.resize(head[5]);
    in.read(reinterpret_cast<char *>(instance.mask.data()), head[5]);
    const auto mask = read_mask(instance);
    out.write(reinterpret_cast<const char *>(mask.data()), mask.size());
    for (uint32_t v = 0; v < 32; ++v) {
      for (uint32_t u = 0; u < 64; ++u) {out.put(is_at(instance, u, v));}
    }
  }
}
"""


def code(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return block


def messages(encoding: int) -> tuple[list[Instance], list[np.ndarray]]:
    """Return instances that have been serialized by the middleware, and their true masks."""
    random = np.random.default_rng(7)
    masks = [random.random(shape) < 0.6 for shape in SHAPES]
    masks[6][:], masks[7][:] = True, False
    origins = random.integers(0, 20, (len(masks), 2))
    sizes = [mask.shape[::-1] for mask in masks]
    rois = np.concatenate([origins, origins + sizes], axis=1)
    count = len(masks)
    found = Detections(
        boxes=rois.astype(np.float32),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        mask_scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        class_ids=np.zeros(count, np.int64),
        mask_rois=rois.astype(np.int32),
        masks=tuple(masks),
        image_size=(32, 64),
    )
    made = message_from_detections(
        found, ("cup",), header=Header(), keyframe_stamp=Time(), mask_encoding=encoding
    )
    return list(deserialize_message(serialize_message(made), InstanceArray).instances), masks


ENCODINGS = (Instance.MASK_BITS, Instance.MASK_MONO8, Instance.MASK_RLE)


def all_messages() -> tuple[list[Instance], list[np.ndarray]]:
    """Return instances in every encoding, and the masks that a reader should find in them.

    Among them are instances without masks, and some whose mask is cut, too long, or in a form
    that does not exist.
    """
    instances, masks = [], []
    for encoding in ENCODINGS:
        for instance, mask in zip(*messages(encoding), strict=True):
            instances.append(instance)
            masks.append(mask)
        for change in (slice(0, -1), slice(0, 0), slice(0, -4)):
            for instance, mask in zip(*messages(encoding), strict=True):
                if len(instance.mask):
                    instance.mask = instance.mask[change]
                    instances.append(instance)
                    masks.append(np.zeros_like(mask))
        for instance, mask in zip(*messages(encoding), strict=True):
            instance.mask = instance.mask + array("B", b"\1\1\1\1")
            instances.append(instance)
            masks.append(np.zeros_like(mask))
    for instance, mask in zip(*messages(Instance.MASK_NONE), strict=True):
        instances.append(instance)
        masks.append(np.zeros_like(mask))
    for instance, mask in zip(*messages(Instance.MASK_BITS), strict=True):
        instance.mask_encoding = 200
        instances.append(instance)
        masks.append(np.zeros_like(mask))
    return instances, masks


def test_the_python_of_the_page_reads_every_form_and_survives_the_rest():
    names: dict = {}
    exec(code("python"), names)  # noqa: S102 - it is ours
    for instance, mask in zip(*all_messages(), strict=True):
        found = names["read_mask"](instance)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, mask)


def nests(folder: Path) -> bool:
    """Return whether the headers of a package are in include/NAME/NAME, as ROS 2 installs them."""
    return (folder / folder.name).is_dir()


def test_the_cpp_of_the_page_reads_every_form_and_survives_the_rest(tmp_path):
    compiler = shutil.which("c++") or shutil.which("g++")
    if not compiler:
        pytest.skip("there is no C++ compiler")
    prefixes = {get_package_prefix("yolact_ros"), get_package_prefix("rclpy")}
    # Cyclone DDS and others have headers in include/NAME itself, which would hide the system's.
    includes = [path for p in prefixes for path in Path(p).glob("include/*") if nests(path)]
    headers = [path for path in includes if (path / path.name / "msg/instance.hpp").is_file()]
    if not headers:
        pytest.skip("the messages were built without their C++ headers")
    source = tmp_path / "read.cpp"
    source.write_text(code("cpp") + MAIN)
    program = tmp_path / "read"
    command = [
        compiler,
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=address,undefined",
    ]
    command += ["-fno-sanitize-recover", "-o", program, source]
    command += [word for folder in includes for word in ("-isystem", folder)]
    subprocess.run([str(word) for word in command], check=True, timeout=120)
    content, expected = b"", b""
    for instance, mask in zip(*all_messages(), strict=True):
        roi, data = instance.roi, bytes(instance.mask)
        encoding = instance.mask_encoding
        head = (roi.width, roi.height, roi.x_offset, roi.y_offset, encoding, len(data))
        content += struct.pack("=6I", *head) + data
        expected += mask.tobytes()
        full = np.zeros((32, 64), bool)
        full[roi.y_offset :, roi.x_offset :][: roi.height, : roi.width] = mask
        expected += full.tobytes()
    (tmp_path / "in").write_bytes(content)
    subprocess.run([str(program), str(tmp_path / "in"), str(tmp_path / "out")], check=True)
    assert (tmp_path / "out").read_bytes() == expected
