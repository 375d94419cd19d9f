# For `pip install .` without ROS: the library and the `yolact` command; metadata in setup.cfg.
# ROS workspaces build the package with CMakeLists.txt, which also generates the messages.
from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["yolact_ros*"]), "yolact_ros.models"],
    package_dir={"yolact_ros.models": "models"},  # so that a model is there without a clone
    package_data={
        "yolact_ros": ["py.typed"],
        "yolact_ros.models": ["*/model.json", "*/*.onnx"],
    },
)
