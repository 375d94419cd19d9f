"""Objects are located by depth where the physics engine has placed them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("pybullet")

from yolact_ros.runtime.depth.objects import (
    DepthView,
    Intrinsics,
    pixel_rays,
    place_object,
    points_of,
)
from yolact_ros.simulate.camera import random_camera
from yolact_ros.simulate.tabletop import Tabletop

SIZE = (240, 320)


def test_objects_are_found_inside_the_boxes_of_the_physics_engine():
    random = np.random.default_rng(12)
    placed = 0
    with Tabletop(random, objects=6, clutter=0) as world:
        look = world.restyle(random)
        for _ in range(2):
            camera = random_camera(random, world.middle, size=SIZE)
            view = world.render(camera, look)
            # OpenGL has the middle of the picture between two pixels.
            f, cx, cy = camera.focal_length, SIZE[1] / 2 - 0.5, SIZE[0] / 2 - 0.5
            rays = pixel_rays(Intrinsics(SIZE, (f, 0, cx, 0, f, cy, 0, 0, 1)))
            depth = DepthView(view.depth, rays)
            pose = camera.pose()
            for body in world.objects:
                mask = view.bodies == body
                if mask.sum() < 150:
                    continue
                # A network's mask: it includes a border of the background.
                spilled = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
                place = place_object(spilled, np.array([0, 0]), depth)
                low, high = world._bounds(body)
                points = points_of(rays, view.depth, place.inside).T
                points = points @ pose[:3, :3].T + pose[:3, 3]
                inside = ((points > low - 0.01) & (points < high + 0.01)).all(axis=1)
                centroid = pose[:3, :3] @ place.centroid + pose[:3, 3]
                assert ((centroid > low) & (centroid < high)).all()
                assert inside.mean() > 0.85
                placed += 1
    assert placed >= 6
