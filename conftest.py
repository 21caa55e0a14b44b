"""For the whole suite."""

pytest_plugins = ["pytester"]
