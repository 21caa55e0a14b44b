"""An emulator of Fly's Machines API on loopback; every machine really runs."""
