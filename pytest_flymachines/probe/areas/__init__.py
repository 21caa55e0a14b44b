"""The checks, one module for each part of the API. An area's checks run one after the other."""
