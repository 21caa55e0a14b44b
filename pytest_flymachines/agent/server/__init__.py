"""The bundled cook-agent: the program that runs in the machine.

It is packed into one zipapp (`agent.bundle`) and needs only `python3` >= 3.10 there. So
these modules import nothing but the standard library, h11, wsproto and each other, and
nothing costly before it is needed: the port must be open within milliseconds.
"""

VERSION = "1"
