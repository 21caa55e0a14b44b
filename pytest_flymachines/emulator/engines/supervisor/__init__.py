"""The processes that stand between the emulator and what runs in its machines.

The emulator must not fork: it has threads, and a parent-death signal is bound to the thread
that forked. So it starts one small Python process, the spawner, which forks a supervisor for
each machine. The supervisor stands inside the machine's namespaces (but not in its pid
namespace, so nothing in there can see it), is the parent of the main process and of every
exec, makes sockets there, and ends the machine when the emulator's end of its control socket
closes, however that came about.

Only the standard library and this package are imported here: every byte counts once per
machine, and nothing can be imported any more once the machine's files are in view.
"""
