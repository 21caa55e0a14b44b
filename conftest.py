"""For the whole suite."""

import signal

pytest_plugins = ["pytester"]

# Under nohup a hangup is ignored, and so it would be in every process that the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
