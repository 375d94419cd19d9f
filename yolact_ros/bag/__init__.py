"""Reading and writing of recorded bags without ROS."""
