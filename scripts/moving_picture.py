"""Make the moving picture of the README from an overlay video.

yolact predict models/demo/tabletop.mp4 --overlay out/readme --propagated-frames 1
python3 scripts/moving_picture.py out/readme/tabletop.mp4 docs/demo.webp
"""

import argparse

import cv2
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video")
parser.add_argument("output", help="animated .webp")
parser.add_argument("--start", type=float, default=0.0, help="first second of the video")
parser.add_argument("--seconds", type=float, default=6.0)
parser.add_argument("--width", type=int, default=480)
parser.add_argument("--rate", type=float, default=10.0, help="images per second of the result")
parser.add_argument("--quality", type=int, default=60)
arguments = parser.parse_args()

video = cv2.VideoCapture(arguments.video)
step = max(round(video.get(cv2.CAP_PROP_FPS) / arguments.rate), 1)
first = round(arguments.start * video.get(cv2.CAP_PROP_FPS))
frames = []
for number in range(first + round(arguments.seconds * video.get(cv2.CAP_PROP_FPS))):
    good, image = video.read()
    if not good:
        break
    if number >= first and (number - first) % step == 0:
        size = arguments.width, round(image.shape[0] * arguments.width / image.shape[1])
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        frames.append(Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB)))
if not frames:
    parser.error(f"{arguments.video} has no images in these seconds.")
frames[0].save(
    arguments.output,
    save_all=True,
    append_images=frames[1:],
    duration=round(1000 / arguments.rate),
    loop=0,
    quality=arguments.quality,
    method=4,
)
