"""True motion: by hand for a flat wall, and against the pictures of a simulated clip."""

from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.evaluate.true_motion import Motion, motion_from_depth

SIZE = (20, 30)


def camera(x=0.0, y=0.0, z=0.0):
    """A camera at (x, y, z) metres that looks along z."""
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return {"fx": 20.0, "fy": 20.0, "cx": 15.0, "cy": 10.0, "camera_to_world": pose.tolist()}


def wall(distance):
    return np.full(SIZE, distance, np.float32)


def test_a_camera_that_steps_aside_sees_a_wall_shift_by_focal_length_over_distance():
    motion = motion_from_depth(
        wall(2.0), camera(x=0.3), earlier_depth=wall(2.0), earlier_camera=camera()
    )
    # 20 px * 0.3 m / 2 m: what is at x now was 3 pixels further right.
    np.testing.assert_allclose(motion.flow[..., 0], 3, atol=1e-5)
    np.testing.assert_allclose(motion.flow[..., 1], 0, atol=1e-5)
    assert motion.visible[:, :27].all()
    assert not motion.visible[:, 27:].any()


def test_what_something_nearer_hid_is_not_visible():
    earlier = wall(2.0)
    earlier[5:10, 5:10] = 1.0  # a board in front of the wall, gone since
    motion = motion_from_depth(wall(2.0), camera(), earlier_depth=earlier, earlier_camera=camera())
    assert not motion.visible[5:10, 5:10].any()
    assert motion.visible.sum() == 600 - 25


def test_what_lies_behind_the_earlier_camera_is_not_visible():
    motion = motion_from_depth(
        wall(1.0), camera(z=-3.0), earlier_depth=wall(2.0), earlier_camera=camera()
    )
    assert not motion.visible.any()
    assert np.isfinite(motion.flow).all()


def test_masks_are_carried_along():
    flow = np.zeros((*SIZE, 2), np.float32)
    flow[..., 0], flow[..., 1] = -4, 2  # everything moved 4 right and 2 up
    mask = np.zeros(SIZE, bool)
    mask[8:12, 3:9] = True
    expected = np.zeros(SIZE, bool)
    expected[6:10, 7:13] = True
    visible = np.ones(SIZE, bool)
    assert np.array_equal(Motion(flow, visible).carry(mask), expected)
    visible[6] = expected[6] = False
    assert np.array_equal(Motion(flow, visible).carry(mask), expected)
    assert not Motion(flow, visible).carry(np.zeros(SIZE, bool)).any()


def test_the_true_masks_of_a_simulated_clip_move_with_its_flow():
    pytest.importorskip("pybullet")
    rle = pytest.importorskip("pycocotools.mask")
    from yolact_ros.simulate.generate import clip_frames

    # A hundred frames make one sweep: two in sequence are as far apart as in a real clip.
    frames = clip_frames(3, frames=100, size=(240, 320))
    before, now = next(frames), next(frames)
    motion = motion_from_depth(
        now.depth, now.camera, earlier_depth=before.depth, earlier_camera=before.camera
    )
    masks = [
        {a["track_id"]: rle.decode(a["segmentation"]).astype(bool) for a in frame.annotations}
        for frame in (before, now)
    ]
    ious, unmoved = [], []
    for track in masks[0].keys() & masks[1].keys():
        there = masks[1][track] & motion.visible
        for values, mask in (
            (ious, motion.carry(masks[0][track])),
            (unmoved, masks[0][track] & motion.visible),
        ):
            values.append((mask & there).sum() / (mask | there).sum())
    assert len(ious) >= 3
    assert np.mean(ious) > 0.97
    assert np.mean(unmoved) < np.mean(ious) - 0.01
