#!/usr/bin/env python3
"""Follow the objects of a video: video.py VIDEO [--frames N]."""

import argparse
import sys
from collections import Counter

import cv2

from yolact_ros import Segmenter

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video", help="video file")
parser.add_argument("--frames", type=int, default=0, help="stop after N frames (0 = never)")
parser.add_argument("--model", default="tabletop")
arguments = parser.parse_args()

video = cv2.VideoCapture(arguments.video)
if not video.isOpened():
    sys.exit(f"{arguments.video} cannot be read as a video.")
rate = video.get(cv2.CAP_PROP_FPS) or 30.0

seen: Counter[tuple[int, str]] = Counter()  # images on which each object was seen
frame = 0
with Segmenter.open(arguments.model) as segmenter:
    stream = segmenter.stream()
    while not arguments.frames or frame < arguments.frames:
        good, image = video.read()
        if not good:
            break
        for instance in stream.segment(image, stamp=frame / rate):
            if instance.track_id:  # 0 until the object has been confirmed
                seen[int(instance.track_id), instance.class_name] += 1
        frame += 1

for (track_id, name), images in sorted(seen.items()):
    print(f"object {track_id}: {name}, seen on {images} of {frame} images")
