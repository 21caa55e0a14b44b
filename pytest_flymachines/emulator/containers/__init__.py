"""Machines of several containers, as Fly's pilot runs them.

Each has an image, files and processes of its own, and all share the machine's network and limits.
Source: https://fly.io/docs/machines/guides-examples/multi-container-machines/.
"""
