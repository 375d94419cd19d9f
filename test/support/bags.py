"""Write a small recorded bag."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SIZE = (48, 60)
DEPTH_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo")


def growing_rectangle() -> list[np.ndarray]:
    """Draw six images of a growing blue rectangle, (48, 60, 3) uint8 BGR."""
    made = [np.zeros((*SIZE, 3), np.uint8) for _ in range(6)]
    for number, image in enumerate(made):
        image[10:30, 6 : 20 + 5 * number, 0] = 255
    return made


def calibration(types):
    """Return the fields of a CameraInfo with focal length 50 and centre (30, 24)."""
    none = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False}
    k = np.array([50, 0, 30, 0, 50, 24, 0, 0, 1], np.float64)
    return {
        **{"height": SIZE[0], "width": SIZE[1], "distortion_model": "plumb_bob", "k": k},
        **{"d": np.zeros(5), "r": np.eye(3).reshape(-1), "p": np.zeros(12)},
        **{
            "binning_x": 0,
            "binning_y": 0,
            "roi": types["sensor_msgs/msg/RegionOfInterest"](**none),
        },
    }


def write_bag(
    folder: Path,
    images: Sequence[np.ndarray],
    storage: str = "mcap",
    *,
    compressed: bool = False,
    spoiled: tuple[int, ...] = (),
    depths: tuple[int, ...] = (),
    depth_topics: tuple[str, str] = ("/depth", "/info"),
) -> Path:
    """Record images on /camera/image_raw, and as many messages on each of two other topics.

    Args:
        folder: the bag to write.
        images: (48, 60, 3) uint8 BGR.
        storage: `mcap` or `sqlite3`.
        compressed: write PNG instead of raw images.
        spoiled: indices of images with an unknown encoding.
        depths: indices of images that also get a depth of 2 m and a calibration.
        depth_topics: topics of depth and calibration.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("float32 volts\n", "robot_msgs/msg/Battery"))
    types = store.types
    kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    with Writer(folder, version=8, storage_plugin=plugin) as writer:
        topics = {
            name: writer.add_connection(name, message_type, typestore=store)
            for name, message_type in [
                ("/camera/image_raw", kind),
                ("/words", "std_msgs/msg/String"),
                ("/battery", "robot_msgs/msg/Battery"),
                *(zip(depth_topics, DEPTH_TYPES, strict=True) if depths else ()),
            ]
        }

        def put(name, time, **fields):
            connection = topics[name]
            message = types[connection.msgtype](**fields)
            writer.write(connection, time, store.serialize_cdr(message, connection.msgtype))

        for number, image in enumerate(images):
            time = 10**18 + number * 10**8
            stamp = types["builtin_interfaces/msg/Time"](sec=100 + number, nanosec=7)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
            if compressed:
                fields = {"format": "png", "data": cv2.imencode(".png", image)[1].reshape(-1)}
            else:
                fields = {
                    "height": SIZE[0],
                    "width": SIZE[1],
                    "encoding": "nonsense" if number in spoiled else "rgb8",
                    "is_bigendian": 0,
                    "step": 3 * SIZE[1],
                    "data": image[..., ::-1].reshape(-1),
                }
            put("/camera/image_raw", time, header=header, **fields)
            if number in depths:
                flat = np.full(SIZE, 2000, np.uint16).view(np.uint8).reshape(-1)
                fields |= {"encoding": "16UC1", "step": 2 * SIZE[1], "data": flat}
                put(depth_topics[0], time, header=header, **fields)
                put(depth_topics[1], time, header=header, **calibration(types))
            put("/words", time + 1, data=f"word {number}")
            put("/battery", time + 2, volts=12.5 - number)
    return folder
