"""The services of the node answer from its own process."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from yolact_ros.ros.messages.images import message_from_bgr
from yolact_ros.ros.parameters.settings import Settings
from yolact_ros.ros.services import SegmentRequest
from yolact_ros.srv import Segment

BLUE = {"blue": (32, 16, 96, 80)}
RED = {"red": (0, 128, 80, 256)}


@pytest.fixture
def call(client):
    """Call a service of the node and return its response; several at once for several requests."""

    def ask(kind, name, *requests):
        service = client.node.create_client(kind, f"{client.namespace}/yolact/{name}")
        assert service.wait_for_service(20.0)
        results = [client.call(service, requests[0])]  # now the node knows the client
        answers = [service.call_async(request) for request in requests[1:]]
        assert client.spin_until(lambda: all(answer.done() for answer in answers))
        results += [answer.result() for answer in answers]
        return results[0] if len(results) == 1 else results

    return ask


def question(image: np.ndarray, client) -> Segment.Request:
    header = client.send(np.zeros((1, 1, 3), np.uint8))  # any header
    header.frame_id = "asked"
    return Segment.Request(image=message_from_bgr(image, header))


def names(result) -> list[str]:
    return [instance.class_name for instance in result.instances]


def test_a_requested_image_is_segmented_independently_of_the_cameras(
    start_node, client, image_with, call
):
    start_node()
    seen = client.ask(image_with(RED, (256, 256)))
    requests = [question(image_with(BLUE, (256, 256)), client) for _ in range(5)]
    requests.append(question(image_with({}, (48, 64)), client))
    *answers, empty = call(Segment, "segment", *requests)
    for request, answer in zip(requests, answers, strict=False):
        assert answer.success and not answer.message
        assert answer.instances.header == request.image.header
        assert answer.instances.keyframe_stamp == request.image.header.stamp
        assert names(answer.instances) == ["blue"]
    assert empty.success and not empty.instances.instances
    assert (empty.instances.height, empty.instances.width) == (48, 64)
    bad = question(image_with(BLUE, (256, 256)), client)
    bad.image.encoding = "16UC1"
    answer = call(Segment, "segment", bad)
    assert not answer.success and "16UC1" in answer.message
    # Nothing of this is a camera's image.
    assert "asked" not in {r.header.frame_id for r in client.results}
    assert client.stats[-1].failed == 0 and seen in client.results


def test_images_are_accepted_again_after_a_pause(start_node, client, image_with, call):
    start_node()
    image = image_with(BLUE, (256, 256))
    client.ask(image)
    answer = call(SetBool, "set_enabled", SetBool.Request(data=False))
    assert answer.success and "model stays open" in answer.message
    assert client.spin_until(lambda: not client.camera.get_subscription_count())
    assert call(Segment, "segment", question(image, client)).success
    answer = call(SetBool, "set_enabled", SetBool.Request(data=True))
    assert answer.success
    assert client.spin_until(client.camera.get_subscription_count)
    assert names(client.ask(image)) == ["blue"]
    assert call(Trigger, "force_keyframe", Trigger.Request()).success

    change = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    assert call(ChangeState, "change_state", change).success
    for kind, name, request in [
        (Segment, "segment", question(image, client)),
        (Trigger, "force_keyframe", Trigger.Request()),
    ]:
        answer = call(kind, name, request)
        assert not answer.success
        assert f"ros2 lifecycle set {client.namespace}/yolact activate" in answer.message


def test_a_request_is_answered_once(image_with):
    woken = []
    asked = SegmentRequest(
        message_from_bgr(image_with(BLUE, (8, 8)), Header()), lambda: woken.append(1)
    )
    asked.give_up("The node was deactivated.")
    asked.give_up("Something else.")
    asked.work(None, Settings())  # too late
    assert asked.answer.result().message == "The node was deactivated." and woken == [1]


def test_a_failure_of_the_model_is_an_answer(image_with):
    class Broken:
        def segment(self, image, *, postprocess):
            raise RuntimeError("out of memory")

    asked = SegmentRequest(message_from_bgr(image_with(BLUE, (8, 8)), Header()), lambda: None)
    asked.work(Broken(), Settings())
    answer = asked.answer.result()
    assert not answer.success
    assert answer.message == "The model failed: RuntimeError: out of memory"
