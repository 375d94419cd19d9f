"""Read and write recorded bags without ROS."""
