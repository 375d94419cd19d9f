"""The launch files are checked, and run where ROS 2's launch system is installed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FILES = sorted((REPOSITORY / "launch").glob("*.launch.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_launch_file_is_python_with_an_entry_point(path):
    names = compile(path.read_text(), str(path), "exec").co_names
    assert "generate_launch_description" in names


SCRIPT = "import sys; from ros2cli.cli import main; sys.exit(main())"


def launch(*words: str) -> subprocess.Popen[str]:
    """Run `ros2 launch` with a launch file, by its name in this package or by its path."""
    pytest.importorskip("launch_ros", reason="ROS 2's launch system is not installed")
    package = [] if Path(words[0]).is_absolute() else ["yolact_ros"]
    return ros2("launch", *package, *words)


def ros2(*words: str) -> subprocess.Popen[str]:
    """Run a command of ros2cli."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_is_described(path):
    shown = launch(path.name, "--show-args")
    output, _ = shown.communicate(timeout=60.0)
    assert shown.returncode == 0, output
    assert "'model':" in output and "no description" not in output
    assert "Exception" not in output


def test_the_launched_node_has_the_arguments_values(client, squares_bundle, image_with):
    process = launch(
        "yolact.launch.py",
        f"namespace:={client.namespace}",
        f"model:={squares_bundle}",
        "score_threshold:=0.75",
        "mask_encoding:=mono8",
    )
    try:
        client.connect()
        image = image_with({"blue": (0, 0, 64, 64), "red": (64, 64, 128, 128)}, (128, 128))
        result = client.ask(image)
        assert [(i.class_name, i.mask_encoding) for i in result.instances] == [("blue", 2)]
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20.0)
    assert process.returncode == 0, output
    assert "process has finished cleanly" in output and "Traceback" not in output


def test_a_parameter_file_applies_where_no_argument_is_given(
    client, squares_bundle, image_with, tmp_path
):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n"
        f"    model: {squares_bundle}\n    mask_encoding: none\n    max_detections: 1\n"
    )
    process = launch("yolact.launch.py", f"namespace:={client.namespace}", f"params_file:={file}")
    try:
        client.connect()
        image = image_with({"blue": (0, 0, 64, 64), "red": (64, 64, 128, 128)}, (128, 128))
        result = client.ask(image)
        assert [(i.class_name, i.mask_encoding) for i in result.instances] == [("blue", 0)]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20.0)


@pytest.mark.parametrize(
    "given, images",
    [
        ([], "{namespace}/{camera}/image_raw"),
        (["images:={camera}/color"], "{namespace}/{camera}/color"),
        (["images:=/other/{camera}/color"], "/other/{camera}/color"),
    ],
)
def test_several_cameras_are_launched_on_one_node(client, squares_bundle, given, images):
    process = launch(
        "multi_camera.launch.py",
        *(f"namespace:={client.namespace}", f"model:={squares_bundle}"),
        *("cameras:=[left, right]", *given),
    )
    try:
        for name in ("left", "right"):
            camera = images.format(namespace=client.namespace, camera=name)
            assert client.spin_until(lambda t=camera: client.node.count_subscribers(t), 60.0)
            topic = f"{client.namespace}/yolact/{name}/instances"
            assert client.node.count_publishers(topic) == 1
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20.0)
    assert process.returncode == 0 and "Traceback" not in output, output


MANAGED = """
from launch import LaunchDescription
from launch.actions import EmitEvent, IncludeLaunchDescription, RegisterEventHandler
from launch.actions import OpaqueFunction
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events import matches_node_name
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from launch.substitutions import PathJoinSubstitution
from lifecycle_msgs.msg import Transition


def change(transition):
    matcher = matches_node_name("{namespace}/yolact")
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matcher, transition_id=transition))


def generate_launch_description():
    share = FindPackageShare("yolact_ros")
    arguments = {{"autostart": "false", "namespace": "{namespace}", "model": "{model}"}}
    return LaunchDescription([
        IncludeLaunchDescription(
            PathJoinSubstitution([share, "launch", "yolact.launch.py"]),
            launch_arguments=arguments.items(),
        ),
        RegisterEventHandler(OnStateTransition(
            goal_state="inactive", entities=[change(Transition.TRANSITION_ACTIVATE)]
        )),
        change(Transition.TRANSITION_CONFIGURE),
    ])
"""


def test_lifecycle_events_of_a_launch_file_control_the_node(
    client, squares_bundle, image_with, tmp_path
):
    file = tmp_path / "managed.launch.py"
    file.write_text(MANAGED.format(namespace=client.namespace, model=squares_bundle))
    process = launch(str(file))
    try:
        client.connect()
        result = client.ask(image_with({"blue": (0, 0, 64, 64)}, (128, 128)))
        assert [i.class_name for i in result.instances] == ["blue"]
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20.0)
    assert process.returncode == 0 and "Traceback" not in output, output


@pytest.mark.parametrize(
    "file, words, expected",
    [
        ("yolact.launch.py", ["image:=/a", "cameras:=[x, y]"], "cameras is for several"),
        ("yolact.launch.py", ["camera:=v4l2", "cameras:=[x, y]"], "cameras is for several"),
        ("yolact.launch.py", ["score_threshold:=abc"], "score_threshold is 'abc'; expected a nu"),
        ("yolact.launch.py", ["max_frame_age:=[1]"], "max_frame_age is '[1]'; expected a number"),
        ("yolact.launch.py", ["cameras:=front"], "cameras is 'front'; expected a list of names"),
        ("yolact.launch.py", ["cameras:=[1, 2]"], "cameras is '[1, 2]'; expected a list of na"),
        (
            "yolact.launch.py",
            ["dds_profile:=/no/file"],
            "dds_profile is '/no/file', which is not a file",
        ),
        (
            "yolact.launch.py",
            ["params_file:=/no/file"],
            "params_file is '/no/file', which is not a file",
        ),
        ("yolact.launch.py", ["camera:=kinect"], 'Argument "camera"'),
        ("multi_camera.launch.py", ["cameras:=front"], "cameras is 'front'; expected a list"),
    ],
)
def test_a_bad_argument_is_named_and_nothing_starts(file, words, expected):
    process = launch(file, *words)
    output, _ = process.communicate(timeout=60.0)
    assert process.returncode == 1
    assert expected in output
    assert "process started" not in output and "Traceback" not in output


def test_rviz_that_is_not_installed_is_named_and_nothing_starts():
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        process = launch("yolact.launch.py", "rviz:=true")
        output, _ = process.communicate(timeout=60.0)
        assert process.returncode == 1 and "rviz2 is not installed" in output
        assert "process started" not in output


@pytest.mark.parametrize(
    "words, expected", [([], "unconfigured"), (["autostart:=true"], "active")]
)
def test_flags_of_a_parameter_file_apply_unless_given(
    client, squares_bundle, tmp_path, words, expected
):
    from lifecycle_msgs.srv import GetState

    file = tmp_path / "mine.yaml"
    file.write_text(
        f"/**:\n  ros__parameters:\n    autostart: false\n    model: {squares_bundle}\n"
    )
    name = f"namespace:={client.namespace}"
    process = launch("yolact.launch.py", name, f"params_file:={file}", *words)
    try:
        state = client.node.create_client(GetState, f"{client.namespace}/yolact/get_state")
        assert client.spin_until(state.service_is_ready, 60.0)

        def label():
            # An answer is lost if the node has not discovered the client yet; then ask again.
            future = state.call_async(GetState.Request())
            client.spin_until(future.done, 2.0)
            return future.result().current_state.label if future.done() else ""

        assert client.spin_until(lambda: label() == expected, 60.0)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20.0)


def test_the_command_line_of_ros2_sets_parameters_and_states(client, start_node):
    pytest.importorskip("ros2lifecycle.api", reason="ROS 2's command line is not installed")
    node = start_node()

    def run(*words):
        # Without the daemon, which would outlive the test; it then has to discover the node.
        process = ros2(*words[:2], "--no-daemon", "--spin-time", "5", *words[2:])
        output, _ = process.communicate(timeout=60.0)
        return output

    name = f"{client.namespace}/yolact"
    assert "successful" in run("param", "set", name, "score_threshold", "0.625")
    assert "0.625" in run("param", "get", name, "score_threshold")
    assert "read by the transition configure" in run("param", "set", name, "model", "tools")
    assert "active [3]" in run("lifecycle", "get", name)
    assert "successful" in run("lifecycle", "set", name, "deactivate")
    assert "inactive [2]" in run("lifecycle", "get", name)
    assert "successful" in run("lifecycle", "set", name, "shutdown")
    assert node.wait() == 0


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config/cameras").glob("*.yaml")), ids=str)
def test_a_camera_file_has_topics_and_parameters_that_the_node_knows(path):
    import dataclasses

    from yolact_ros.ros.parameters.settings import Settings

    known = {
        field.name
        for table in dataclasses.fields(Settings)
        for field in dataclasses.fields(getattr(Settings(), table.name))
    }
    content = yaml.safe_load(path.read_text())
    assert {"image", "camera_info"} <= set(content["topics"]) <= {"image", "depth", "camera_info"}
    assert all(topic.startswith("/") for topic in content["topics"].values())
    assert set(content.get("parameters", {})) <= known
    assert f"camera:={path.stem}" in path.read_text()


def test_a_camera_name_sets_the_topics_of_the_node(client, squares_bundle):
    process = launch(
        *("yolact.launch.py", f"namespace:={client.namespace}", f"model:={squares_bundle}"),
        *("camera:=v4l2", f"image:={client.namespace}/own/image"),
    )
    try:
        own = f"{client.namespace}/own/image"
        assert client.spin_until(lambda: client.node.count_subscribers(own), 60.0)
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20.0)
    assert process.returncode == 0 and "Traceback" not in output, output
