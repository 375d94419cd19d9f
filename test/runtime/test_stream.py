"""Streams run the right graph on each image, with a backend of plain arrays."""

from __future__ import annotations

import threading
import types

import numpy as np
import pytest

from yolact_ros.config import KeyframeConfig, PostprocessConfig, TrackerConfig
from yolact_ros.errors import BackendError, ConfigError
from yolact_ros.runtime.bundle import FEATURES, ModelDescription
from yolact_ros.runtime.detect_forms import DETECT_FORMS
from yolact_ros.runtime.segmenter import Segmenter


@pytest.fixture
def video(tiny):
    """Build a segmenter for video whose keyframes store their numbers as features."""

    def build(*warps, fail_at=(), on_gpu=False):
        answer = tiny.host_outputs([[0, 0, 0.5, 1]], [[0.9, 0]], prototypes=np.ones((8, 10, 1)))
        runs = []

        def run(graph, inputs, *, keep=()):
            runs.append((graph, dict(inputs)))
            assert set(keep) == set(FEATURES)
            if len(runs) - 1 in fail_at:
                raise BackendError("The device is gone.")
            number = len(runs) - 1
            kept = {"x4": ("x4", number), "x5": ("x5", number), "lateral": ("lateral", number)}
            return {**answer, **kept} if graph == "keyframe" else answer

        backend = types.SimpleNamespace(run=run, close=lambda: None, on_gpu=on_gpu)
        description = ModelDescription(tiny.TINY, "dense", 100, "0123456789ab", warps)
        return Segmenter(backend, description), runs

    return build


def black(height=64, width=80):
    return np.zeros((height, width, 3), np.uint8)


def texture(dx=0, seed=0):
    """Return the visible part of a texture, from column `dx` on, at the network's size."""
    noise = np.random.default_rng(seed).integers(0, 255, (16, 40, 3)).astype(np.uint8)
    scene = np.kron(noise, np.ones((4, 4, 1), np.uint8))
    return np.ascontiguousarray(scene[16:48, 40 + dx : 80 + dx])


@pytest.mark.parametrize(
    "warp, graph, inputs",
    [
        ("learned", "non_keyframe", {"image", "x4", "x5", "lateral"}),
        ("dis", "non_keyframe_flow", {"image", "x4", "x5", "flow"}),
        ("none", "non_keyframe_flow", {"image", "x4", "x5", "flow"}),
    ],
)
def test_images_between_keyframes_reuse_the_features_of_the_last_one(video, warp, graph, inputs):
    segmenter, runs = video("learned", "dis", "none")
    stream = segmenter.stream(KeyframeConfig(keyframe_interval=3, warp=warp))
    found = [stream.detect(black(), i / 10) for i in range(5)]
    assert [name for name, _ in runs] == ["keyframe", graph, graph, "keyframe", graph]
    assert [d.frame_type for d in found] == [
        *("keyframe", "partial", "partial"),
        *("keyframe", "partial"),
    ]
    assert [d.keyframe_reason for d in found] == ["first", None, None, "interval", None]
    assert [d.keyframe_stamp for d in found] == [0.0, 0.0, 0.0, 0.3, 0.3]
    assert set(runs[1][1]) == inputs
    assert [runs[i][1]["x4"][1] for i in (1, 2, 4)] == [0, 0, 3]
    assert runs[2][1]["x5"] == ("x5", 0)


def test_auto_selects_the_best_warp_that_the_model_supports(video):
    segmenter, runs = video("dis", "none")
    stream = segmenter.stream(KeyframeConfig(change_threshold=1.0))
    for dx in (0, 4):
        stream.detect(texture(dx))
    assert runs[1][0] == "non_keyframe_flow"
    assert runs[1][1]["flow"].any()


def test_optical_flow_reaches_the_graph_in_pixels_of_the_input(video):
    segmenter, runs = video("dis", "none")
    stream = segmenter.stream(KeyframeConfig(warp="dis", change_threshold=1.0))
    for dx in (0, 3):
        stream.detect(texture(dx))
    flow = runs[1][1]["flow"]
    assert flow.shape == (1, 2, 2, 3)  # the cells of an input of 32 x 40
    # What is at column x lay at x + 3 of the keyframe; pictures this small are hard on DIS.
    assert flow[0, 0].mean() == pytest.approx(3, abs=1)
    assert abs(flow[0, 1].mean()) < 1


def test_without_warp_the_flow_is_zero(video):
    segmenter, runs = video("dis", "none")
    stream = segmenter.stream(KeyframeConfig(warp="none", change_threshold=1.0))
    for dx in (0, 4):
        stream.detect(texture(dx))
    flow = runs[1][1]["flow"]
    assert flow.dtype == np.float32
    assert not flow.any()


@pytest.mark.parametrize("warp", ["learned", "dis", "none"])
def test_another_scene_is_a_keyframe(video, warp):
    segmenter, _ = video("learned", "dis", "none")
    stream = segmenter.stream(KeyframeConfig(warp=warp))
    stream.detect(texture())
    assert stream.detect(texture()).frame_type == "partial"
    assert stream.detect(texture(seed=5)).keyframe_reason == "scene_change"
    assert stream.detect(texture(seed=5)).frame_type == "partial"


def test_images_of_another_size_start_again(video):
    segmenter, _ = video("none")
    stream = segmenter.stream()
    images = [black(), black(), black(60, 80), black(60, 80)]
    found = [stream.detect(image) for image in images]
    assert [d.keyframe_reason for d in found] == ["first", None, "size_change", None]


def test_a_keyframe_can_be_requested_once(video):
    segmenter, _ = video("none")
    stream = segmenter.stream()
    stream.detect(black())
    stream.request_keyframe()
    found = [stream.detect(black()) for _ in range(2)]
    assert [d.keyframe_reason for d in found] == ["requested", None]


def test_a_request_that_arrives_while_an_image_is_planned_applies_to_the_next_one(video):
    """The request arrives just after the stream has looked for one."""

    class Late(threading.Event):
        is_late = True

        def is_set(self):
            found = super().is_set()
            if self.is_late:
                self.is_late = False
                self.set()
            return found

    segmenter, _ = video("none")
    stream = segmenter.stream()
    stream.detect(black())
    stream._requested = Late()
    found = [stream.detect(black()) for _ in range(3)]
    assert [d.keyframe_reason for d in found] == [None, "requested", None]


def test_streams_that_share_a_segmenter_keep_their_own_features(video):
    segmenter, runs = video("none")
    left, right = segmenter.stream(), segmenter.stream()
    for stream in (left, right, left, right):
        stream.detect(black())
    assert [runs[i][1]["x4"] for i in (2, 3)] == [("x4", 0), ("x4", 1)]


def test_without_a_stream_every_image_is_a_keyframe(video):
    segmenter, runs = video("learned", "dis", "none")
    found = [segmenter.segment(black()) for _ in range(3)]
    assert [name for name, _ in runs] == ["keyframe"] * 3
    assert {d.frame_type for d in found} == {"keyframe"}
    assert {d.keyframe_reason for d in found} == {None}


def test_a_model_for_single_images_makes_every_image_of_a_stream_a_keyframe(video):
    segmenter, runs = video()
    stream = segmenter.stream()
    found = [stream.detect(black(), i / 10) for i in range(3)]
    assert [name for name, _ in runs] == ["detect"] * 3
    assert [d.keyframe_reason for d in found] == ["first", "interval", "interval"]
    assert [d.keyframe_stamp for d in found] == [0.0, 0.1, 0.2]


def test_after_a_failure_the_next_image_is_a_keyframe(video):
    segmenter, runs = video("none", fail_at=(0, 3))
    stream = segmenter.stream()
    reasons = []
    for _ in range(6):
        try:
            reasons.append(stream.detect(black()).keyframe_reason)
        except BackendError:
            reasons.append("failed")
    assert reasons == ["failed", "first", None, "failed", "first", None]
    assert runs[5][1]["x4"] == ("x4", 4)


def test_settings_of_a_stream_may_change_between_two_images(video):
    segmenter, runs = video("learned", "dis", "none")
    stream = segmenter.stream(KeyframeConfig(warp="none"))
    stream.detect(black())
    stream.detect(black())
    stream.configure(KeyframeConfig(warp="learned"), TrackerConfig(), PostprocessConfig())
    stream.detect(black())
    stream.configure(KeyframeConfig(keyframe_interval=1), TrackerConfig(), PostprocessConfig())
    stream.detect(black())
    graphs = [name for name, _ in runs]
    assert graphs == ["keyframe", "non_keyframe_flow", "non_keyframe", "keyframe"]


def test_a_warp_that_the_model_lacks_is_reported(video):
    segmenter, _ = video("dis", "none")
    with pytest.raises(ConfigError, match="no warp 'learned'; it has: dis, none"):
        segmenter.stream(KeyframeConfig(warp="learned"))
    for_images, _ = video()
    with pytest.raises(ConfigError, match="no warp 'none'; .*yolact export --keyframes"):
        for_images.stream(KeyframeConfig(warp="none"))


def test_warm_up_runs_the_graphs_that_streams_will_use(video):
    segmenter, runs = video("learned", "dis", "none")
    segmenter.warm_up()
    assert [name for name, _ in runs] == ["keyframe"]
    segmenter.warm_up(KeyframeConfig(warp="dis", propagated_frames=1))
    assert [name for name, _ in runs[1:]] == ["keyframe", "non_keyframe_flow"]


def test_images_of_one_pixel_form_a_stream(video):
    segmenter, _ = video("dis")
    stream = segmenter.stream()
    found = [stream.detect(black(1, 1)) for _ in range(2)]
    assert [d.frame_type for d in found] == ["keyframe", "partial"]


@pytest.mark.parametrize(
    "warps, interval, propagated_frames, expected",
    [
        (
            ("dis", "none"),
            5,
            1,
            ["keyframe", None, "non_keyframe_flow", None, "non_keyframe_flow"],
        ),
        (("dis", "none"), 3, 5, ["keyframe", None, None, "keyframe", None]),
        (("dis", "none"), 1, 5, ["keyframe"] * 5),
        ((), 5, 1, ["detect", None, "detect", None, "detect"]),
        ((), 2, 4, ["detect", None, "detect", None, "detect"]),
    ],
)
def test_detections_are_propagated_to_images_without_inference(
    video, warps, interval, propagated_frames, expected
):
    segmenter, runs = video(*warps)
    stream = segmenter.stream(
        KeyframeConfig(keyframe_interval=interval, propagated_frames=propagated_frames)
    )
    found = []
    for i, graph in enumerate(expected):
        before = len(runs)
        found.append(stream.detect(texture(), i / 10))
        assert [name for name, _ in runs[before:]] == ([] if graph is None else [graph])
    whole = {"keyframe", "detect"}
    assert [d.frame_type == "keyframe" for d in found] == [graph in whole for graph in expected]
    for moved in found[1:]:
        np.testing.assert_allclose(moved.boxes, found[0].boxes, atol=0.01)
        assert moved.scores.tolist() == found[0].scores.tolist()
    stamps = [i / 10 for i, graph in enumerate(expected) if graph in whole]
    assert {d.keyframe_stamp for d in found} == set(stamps)


@pytest.mark.parametrize(
    "warps, on_gpu, stamps, expected",
    [
        # Of three images 0.1 s apart, the second lies near enough to the first.
        ((), False, (0, 0.1, 0.2, 0.3), ["detect", None, "detect", None]),
        ((), True, (0, 0.1, 0.2, 0.3), ["detect"] * 4),
        ((), False, (0, 0.2, 0.4, 0.5), ["detect", "detect", "detect", None]),
        ((), False, (1, 0.95, 1.0), ["detect", "detect", None]),
        ((), False, (None, None, None), ["detect"] * 3),
        (
            ("none",),
            False,
            (0, 0.1, 0.2, 0.4),
            ["keyframe", None, "non_keyframe_flow", "non_keyframe_flow"],
        ),
        (("none",), True, (0, 0.1, 0.2), ["keyframe", "non_keyframe_flow", "non_keyframe_flow"]),
    ],
)
def test_by_default_a_stream_propagates_detections_where_that_pays(
    video, warps, on_gpu, stamps, expected
):
    segmenter, runs = video(*warps, on_gpu=on_gpu)
    stream = segmenter.stream(KeyframeConfig(propagated_frames=-1))
    for stamp, graph in zip(stamps, expected, strict=True):
        before = len(runs)
        found = stream.detect(texture(), stamp)
        assert [name for name, _ in runs[before:]] == ([] if graph is None else [graph])
        assert (found.frame_type == "keyframe") == (graph in ("keyframe", "detect"))


def test_images_that_come_too_late_for_propagation_are_keyframes(video):
    segmenter, _ = video()
    stream = segmenter.stream(KeyframeConfig(propagated_frames=-1))
    found = [stream.detect(black(), i / 5) for i in range(3)]
    assert [d.keyframe_reason for d in found] == ["first", "interval", "interval"]


def test_nothing_is_propagated_after_a_failure(video):
    segmenter, runs = video("none", fail_at=(1,))
    stream = segmenter.stream(KeyframeConfig(propagated_frames=1))
    for _ in range(2):
        stream.detect(black())
    with pytest.raises(BackendError):
        stream.detect(black())
    assert stream.detect(black()).keyframe_reason == "first"
    assert len(runs) == 3


def test_an_image_whose_planned_features_never_arrive_is_a_keyframe(video):
    segmenter, runs = video("none", fail_at=(0,))
    stream = segmenter.stream(KeyframeConfig(keyframe_interval=5, change_threshold=1.0))
    first = stream.prepare(black(), 0.0, source="a")
    stream.submit(first)
    second = stream.prepare(black(), 0.1, source="b")
    assert second.step.graph == "non_keyframe_flow"
    with pytest.raises(BackendError, match="gone"):
        stream.fetch(first)
    stream.submit(second)
    stream.fetch(second)
    found = stream.finish(second)
    assert (found.keyframe_reason, found.keyframe_stamp, found.keyframe_source) == (
        "first",
        0.1,
        "b",
    )
    assert [graph for graph, _ in runs] == ["keyframe", "keyframe"]
    assert stream.detect(black(), 0.2).frame_type == "partial"


def test_an_image_reuses_what_it_was_planned_with(video):
    """The next image may be planned as a keyframe before this one is finished."""
    segmenter, runs = video("learned")
    stream = segmenter.stream(KeyframeConfig(keyframe_interval=2, change_threshold=1.0))
    frames = [stream.prepare(black(), i / 10, source=i) for i in (0, 1)]
    stream.submit(frames[0])
    stream.fetch(frames[0])
    stream.submit(frames[1])
    stream.finish(frames[0])
    third = stream.prepare(black(), 0.2, source=2)
    stream.fetch(frames[1])
    stream.submit(third)
    partial = stream.finish(frames[1])
    assert (partial.keyframe_stamp, partial.keyframe_source) == (0.0, 0)
    assert (third.step.reason, runs[1][1]["x4"]) == ("interval", ("x4", 0))
    assert 0 <= frames[1].waited_s < 60


def test_images_overlap_only_with_finished_detections_of_a_device(video, tiny):
    segmenter, _ = video("none", on_gpu=True)
    assert not segmenter.stream().overlaps, "its backend returns when everything is there"
    segmenter.network.backend.submit = lambda *_, **__: None
    assert not segmenter.stream().overlaps, "box head and prototypes follow on the device"
    segmenter.network.form = DETECT_FORMS["with_nms"](segmenter.description.model)
    assert segmenter.stream().overlaps
    assert not segmenter.stream(KeyframeConfig(propagated_frames=1)).overlaps
    segmenter.network.backend.on_gpu = False
    assert not segmenter.stream(KeyframeConfig(propagated_frames=0)).overlaps
