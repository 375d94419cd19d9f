# For `pip install .` without ROS: the library and the `yolact` command; metadata in setup.cfg.
# ROS workspaces build the package with CMakeLists.txt, which also generates the messages.
from setuptools import setup

setup()
