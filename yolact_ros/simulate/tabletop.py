"""Simulate a tabletop in PyBullet: drop objects onto it and render it from any camera."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolact_ros.classes import TABLETOP
from yolact_ros.simulate.camera import Camera, linear_depth
from yolact_ros.simulate.textures import random_colour, random_texture

TABLE_HALF = 0.62  # metres
DROP_HALF = 0.26  # objects fall on the middle of the table
ROOM_HALF = 2.6
FLOOR = -0.75
TEXTURES = 16
TRAY = TABLETOP.index("tray")
STEP_SECONDS = 1 / 240


@dataclass(frozen=True)
class View:
    """Holds the rendering of a scene from one camera.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        bodies: (H, W) int32, body at each pixel, -1 for none.
        depth: (H, W) float32, metres along the optical axis.
    """

    image: np.ndarray
    bodies: np.ndarray
    depth: np.ndarray


# Keyword arguments of PyBullet's `getCameraImage` for the lighting of one view.
Look = dict[str, Any]


class Tabletop(contextlib.AbstractContextManager["Tabletop"]):
    """Owns a physics world with one scene: a table in a room, with objects dropped onto it.

    Every scene has its own world, so that it does not depend on earlier scenes.
    """

    def __init__(self, random: np.random.Generator, *, objects: int, clutter: int) -> None:
        """Build a room, drop objects and clutter, and simulate until they are at rest.

        Args:
            random: random generator that determines the whole scene.
            objects: number of objects that belong to a class.
            clutter: number of other objects.
        """
        with _without_greeting():
            import pybullet
            import pybullet_data
            from pybullet_utils import bullet_client

            self._bullet = pybullet
            self._world: Any = bullet_client.BulletClient(connection_mode=pybullet.DIRECT)
        self._world.setAdditionalSearchPath(pybullet_data.getDataPath())
        self._folder = tempfile.TemporaryDirectory(prefix="tabletop-")
        self.objects: dict[int, int] = {}
        """Class id by body, for objects that belong to a class."""
        self._world.setGravity(0, 0, -9.81)
        self._world.setTimeStep(STEP_SECONDS)
        self._load_textures(random)
        self._build_room(random)
        self._drop_all(random, objects=objects, clutter=clutter)

    def __exit__(self, *_: object) -> None:
        """Stop PyBullet and remove its textures."""
        with contextlib.suppress(self._bullet.error):
            self._world.disconnect()
        self._folder.cleanup()

    def restyle(self, random: np.random.Generator) -> Look:
        """Give surfaces and recolourable objects a new look, and draw random lighting."""
        for body in self._surfaces:
            self._dress(body, random)
        for body, class_id in self.objects.items():
            self._paint(body, class_id, random)
        angle, height = random.uniform(0, 2 * math.pi), random.uniform(0.4, 2.0)
        tint = 1 + random.normal(0, 0.06, 3)
        ambient = random.uniform(0.45, 0.75)
        return {
            "lightDirection": (math.cos(angle), math.sin(angle), height),  # towards the light
            "lightColor": tuple(np.clip(tint, 0.7, 1.0).tolist()),
            "lightDistance": random.uniform(1.0, 3.0),
            "lightAmbientCoeff": ambient,
            "lightDiffuseCoeff": random.uniform(0.4, 0.75),
            "lightSpecularCoeff": random.choice([0.0, 0.05, 0.3]),
            "shadow": int(random.random() < 0.8),
        }

    @property
    def middle(self) -> tuple[float, float, float]:
        """Return the mean position of the objects on the table, in metres."""
        positions = [self._world.getBasePositionAndOrientation(body)[0] for body in self.objects]
        inside = [position for position in positions if position[2] > -0.1] or [(0.0, 0.0, 0.0)]
        return tuple(np.mean(inside, axis=0).tolist())

    def render(self, camera: Camera, look: Look) -> View:
        """Render the scene, with shadows if the look has them."""
        height, width = camera.size
        _, _, colour, depth, bodies = self._world.getCameraImage(
            width,
            height,
            camera.view_matrix(),
            camera.projection_matrix(),
            **look,
            renderer=self._bullet.ER_TINY_RENDERER,
            flags=0,
        )
        image = np.asarray(colour, np.uint8).reshape(height, width, 4)[..., 2::-1]
        return View(
            image=np.ascontiguousarray(image),
            bodies=np.asarray(bodies, np.int32).reshape(height, width),
            depth=linear_depth(np.asarray(depth, np.float32).reshape(height, width)),
        )

    def silhouettes(self, camera: Camera) -> dict[int, int]:
        """Estimate how many pixels each object would fill without occlusion.

        The convex hull of the projected corners of the bounding box is larger than the true
        silhouette, by about half for the shapes here, which a factor corrects.
        """
        inverse = np.linalg.inv(camera.pose())
        areas = {}
        for body in self.objects:
            low, high = self._bounds(body)
            corners = np.array(
                [[x, y, z, 1] for x in (low[0], high[0]) for y in (low[1], high[1])
                 for z in (low[2], high[2])]
            )  # fmt: skip
            seen = corners @ inverse.T
            if (seen[:, 2] <= 0.01).any():
                areas[body] = 0
                continue
            pixels = seen[:, :2] / seen[:, 2:3] * camera.focal_length
            areas[body] = int(0.6 * cv2.contourArea(cv2.convexHull(pixels.astype(np.float32))))
        return areas

    def _bounds(self, body: int) -> tuple[np.ndarray, np.ndarray]:
        links = range(-1, self._world.getNumJoints(body))
        boxes = np.array([self._world.getAABB(body, link) for link in links])
        return boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)

    def _drop_all(self, random: np.random.Generator, *, objects: int, clutter: int) -> None:
        class_ids = random.integers(len(TABLETOP), size=objects).tolist()
        if class_ids.count(TRAY) > 1:  # they would cover everything else
            class_ids = [c for c in class_ids if c != TRAY] + [TRAY]
        kinds = class_ids + [None] * clutter
        if TRAY in kinds:  # first, so that things fall into it
            kinds.remove(TRAY)
            self.objects[self._drop_object(random, TRAY)] = TRAY
            self._simulate(60)
        for index in random.permutation(len(kinds)):
            class_id = kinds[index]
            if class_id is None:
                self._drop_clutter(random)
            else:
                self.objects[self._drop_object(random, class_id)] = class_id
            self._simulate(30)
        self._simulate(240)

    def _simulate(self, steps: int) -> None:
        for _ in range(steps):
            self._world.stepSimulation()

    def _load_textures(self, random: np.random.Generator) -> None:
        folder = Path(self._folder.name)
        self._textures = []
        for index in range(TEXTURES):
            path = folder / f"{index}.png"
            cv2.imwrite(str(path), random_texture(random))
            self._textures.append(self._world.loadTexture(str(path)))

    def _build_room(self, random: np.random.Generator) -> None:
        """Create a tabletop, a floor and four walls, each a textured quadrilateral."""
        collision = self._world.createCollisionShape(
            self._bullet.GEOM_BOX, halfExtents=[TABLE_HALF, TABLE_HALF, 0.02]
        )
        table = self._world.createMultiBody(0, collision, -1, [0, 0, -0.02])
        self._world.changeDynamics(table, -1, lateralFriction=0.8)
        self._world.changeVisualShape(table, -1, rgbaColor=[0, 0, 0, 0])
        reach = ROOM_HALF
        top = TABLE_HALF * random.uniform(0.75, 1.0), TABLE_HALF * random.uniform(0.75, 1.0)
        self._surfaces = [
            self._quad([(-top[0], -top[1], 0), (top[0], -top[1], 0), (top[0], top[1], 0),
                        (-top[0], top[1], 0)], repeat=random.choice([1, 1, 2, 3])),
            self._quad([(-reach, -reach, FLOOR), (reach, -reach, FLOOR), (reach, reach, FLOOR),
                        (-reach, reach, FLOOR)], repeat=random.choice([2, 4, 6])),
        ]  # fmt: skip
        corners = [(-reach, -reach), (reach, -reach), (reach, reach), (-reach, reach)]
        for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
            wall = [(x2, y2, FLOOR), (x1, y1, FLOOR), (x1, y1, 2.0), (x2, y2, 2.0)]
            self._surfaces.append(self._quad(wall, repeat=random.choice([1, 1, 2, 3])))
        self._add_furniture(random)

    def _add_furniture(self, random: np.random.Generator) -> None:
        """Place boxes around the table as a background with depth."""
        for _ in range(int(random.integers(2, 7))):
            half = random.uniform(0.15, 0.7, 3)
            angle, distance = random.uniform(0, 2 * math.pi), random.uniform(1.5, 2.2)
            shape = self._world.createVisualShape(self._bullet.GEOM_BOX, halfExtents=half.tolist())
            position = [distance * math.cos(angle), distance * math.sin(angle), FLOOR + half[2]]
            turn = self._world.getQuaternionFromEuler([0, 0, random.uniform(0, math.pi)])
            self._surfaces.append(self._world.createMultiBody(0, -1, shape, position, turn))

    def _quad(self, corners: list[tuple[float, float, float]], *, repeat: int) -> int:
        normal = np.cross(np.subtract(corners[1], corners[0]), np.subtract(corners[3], corners[0]))
        normal = normal / np.linalg.norm(normal)
        shape = self._world.createVisualShape(
            self._bullet.GEOM_MESH,
            vertices=[list(corner) for corner in corners],
            indices=[0, 1, 2, 0, 2, 3],
            uvs=[[0, 0], [int(repeat), 0], [int(repeat), int(repeat)], [0, int(repeat)]],
            normals=[normal.tolist()] * 4,
        )
        return int(self._world.createMultiBody(0, -1, shape))

    def _dress(self, body: int, random: np.random.Generator) -> None:
        texture = self._textures[int(random.integers(len(self._textures)))]
        self._world.changeVisualShape(body, -1, textureUniqueId=texture, rgbaColor=[1, 1, 1, 1])

    def _drop_object(self, random: np.random.Generator, class_id: int) -> int:
        asset = ASSETS[TABLETOP[class_id]]
        roll = asset.upright
        if class_id != TRAY and random.random() < 0.3:
            roll += random.choice([math.pi / 2, math.pi, -math.pi / 2])
        scale = asset.scale * random.uniform(asset.shrink, 1.0)
        body = self._load(random, asset.file, scale=scale, roll=roll)
        self._paint(body, class_id, random)
        return body

    def _drop_clutter(self, random: np.random.Generator) -> None:
        if random.random() < 0.7:
            file = CLUTTER_FILES[int(random.integers(len(CLUTTER_FILES)))]
            body = self._load(random, file, scale=random.uniform(0.8, 1.6), roll=0.0)
        else:
            body = self._drop_primitive(random)
        if random.random() < 0.6:
            self._dress(body, random)
        else:
            self._tint(body, random)

    def _drop_primitive(self, random: np.random.Generator) -> int:
        bullet = self._bullet
        radius, height = random.uniform(0.012, 0.05), random.uniform(0.03, 0.14)
        half = random.uniform(0.01, 0.08, 3).tolist()
        shape, collision, visual = (
            (bullet.GEOM_BOX, {"halfExtents": half}, {"halfExtents": half}),
            (bullet.GEOM_CYLINDER, {"radius": radius, "height": height},
             {"radius": radius, "length": height}),
            (bullet.GEOM_CAPSULE, {"radius": radius / 2, "height": height},
             {"radius": radius / 2, "length": height}),
        )[int(random.integers(3))]  # fmt: skip
        return int(
            self._world.createMultiBody(
                0.1,
                self._world.createCollisionShape(shape, **collision),
                self._world.createVisualShape(shape, **visual),
                self._place(random),
                self._world.getQuaternionFromEuler(random.uniform(0, math.pi, 3).tolist()),
            )
        )

    def _load(self, random: np.random.Generator, file: str, *, scale: float, roll: float) -> int:
        turn = self._world.getQuaternionFromEuler([roll, 0, random.uniform(0, 2 * math.pi)])
        return int(
            self._world.loadURDF(file, self._place(random), turn, globalScaling=float(scale))
        )

    @staticmethod
    def _place(random: np.random.Generator) -> list[float]:
        return [*random.uniform(-DROP_HALF, DROP_HALF, 2).tolist(), random.uniform(0.12, 0.22)]

    def _paint(self, body: int, class_id: int, random: np.random.Generator) -> None:
        if ASSETS[TABLETOP[class_id]].any_colour and random.random() < 0.75:
            self._tint(body, random)

    def _tint(self, body: int, random: np.random.Generator) -> None:
        colour = (random_colour(random)[::-1] / 255).tolist()
        self._world.changeVisualShape(body, -1, rgbaColor=[*colour, 1])


@contextlib.contextmanager
def _without_greeting() -> Iterator[None]:
    """Suppress what PyBullet prints from C when it is loaded."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    output = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        flush(None)
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)


@dataclass(frozen=True)
class Asset:
    """Describes shape and size of one class of objects.

    Attributes:
        file: URDF, relative to PyBullet's data folder.
        scale: maximum scale of the file's own size; see `shrink`.
        upright: roll in radians that makes the object stand upright (some meshes have y up).
        any_colour: whether each instance gets its own colour.
        shrink: minimum scale as a fraction of `scale`.
    """

    file: str
    scale: float
    upright: float = 0.0
    any_colour: bool = False
    shrink: float = 0.75


ASSETS: dict[str, Asset] = {
    "mug": Asset("objects/mug.urdf", 1.1, any_colour=True),
    "duck": Asset("duck_vhacd.urdf", 1.3, upright=math.pi / 2),
    "teddy": Asset("teddy_vhacd.urdf", 1.3, upright=math.pi / 2, any_colour=True),
    "soccer_ball": Asset("soccerball.urdf", 0.13),
    "lego_brick": Asset("lego/lego.urdf", 2.0, any_colour=True),
    "domino": Asset("domino/domino.urdf", 1.4),
    "jenga_block": Asset("jenga/jenga.urdf", 1.0, any_colour=True),
    "cube": Asset("cube_small.urdf", 1.2, any_colour=True),
    "tray": Asset("tray/traybox.urdf", 0.36, any_colour=True, shrink=0.65),
    "racecar": Asset("racecar/racecar.urdf", 0.38, any_colour=True),
}
assert tuple(ASSETS) == TABLETOP

# Shapes that belong to no class: PyBullet's "random_urdfs", numbered from 0.
CLUTTER_FILES = tuple(f"random_urdfs/{index:03d}/{index:03d}.urdf" for index in range(1000))
