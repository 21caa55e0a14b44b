"""For the whole suite."""

import signal

pytest_plugins = ["pytester"]

# Under nohup, or behind a script's `&`, these are ignored, and so they would be in every process
# that the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
