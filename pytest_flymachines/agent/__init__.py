"""cook-agent: the server that runs in the machine, its delivery, and its clients."""
