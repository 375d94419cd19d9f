#!/usr/bin/env python3
"""Print the instances in an image and draw them: picture.py IMAGE [-o OVERLAY]."""

import argparse
import sys

import cv2

from yolact_ros import Segmenter
from yolact_ros.runtime.output.draw import draw_detections

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("image", help="image file")
parser.add_argument("-o", "--overlay", help="file for the image with the instances drawn on it")
parser.add_argument("--model", default="tabletop")
arguments = parser.parse_args()

image = cv2.imread(arguments.image)
if image is None:
    sys.exit(f"{arguments.image} cannot be read as an image.")

with Segmenter.open(arguments.model) as segmenter:
    found = segmenter.segment(image)
for instance in found:
    x1, y1, x2, y2 = instance.box
    print(
        f"{instance.class_name:12} score {instance.mask_score:.2f}, {instance.crop.sum()} pixels "
        f"in the box ({x1:.0f}, {y1:.0f}) to ({x2:.0f}, {y2:.0f})"
    )
print(f"{len(found)} instances")
if arguments.overlay:
    cv2.imwrite(arguments.overlay, draw_detections(image, found, class_names=found.class_names))
