"""`python -m pytest_flymachines.agent.server` runs the agent without packing it."""

from .main import main

main()
