"""System calls that Python 3.11 has no name for."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from ipaddress import IPv6Address, ip_address

__all__ = [
    "LOOPBACK",
    "MACHINE_NAMESPACES",
    "NEW_NETWORK",
    "NEW_USER",
    "add_address",
    "add_route",
    "adopt_orphans",
    "block_network",
    "die_with_parent",
    "disown_address",
    "forget_capabilities",
    "fork_into",
    "join_namespaces",
    "leave_session_keyring",
    "make_tun",
    "mount_disks",
    "own_address",
    "remove_address",
    "unshare",
]

# PyDLL keeps the GIL over the call: a child made by clone3 must find it held.
_libc = ctypes.PyDLL(None, use_errno=True)

_SYS_CLONE3 = 435
_SYS_KEYCTL = 219 if os.uname().machine == "aarch64" else 250
_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36

_NEW_MOUNTS = 0x00020000
_REC, _SLAVE = 0x4000, 0x80000

# Of <linux/rtnetlink.h>.
_NEW_ADDRESS, _DELETE_ADDRESS, _NEW_ROUTE, _DELETE_ROUTE = 20, 21, 24, 25
_UNICAST, _LOCAL, _UNREACHABLE = 1, 2, 7
_DESTINATION, _OUT, _PREFERRED_SOURCE = 1, 4, 7

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
"""CLONE_NEWUSER, CLONE_NEWNET."""

MACHINE_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
"""CLONE_NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

LOOPBACK = 1
"""The index of `lo`, in every network namespace."""

# What Docker leaves to root in a container (moby, oci/caps/defaults.go), and ptrace for debuggers.
# Above all not CAP_SYS_ADMIN: with it, what covers /proc/sys could be unmounted.
_KEPT_CAPABILITIES = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 19, 27, 29, 31))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this signal when the thread that forked us ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl(PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent has ended."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(CHILD_SUBREAPER)")


def leave_session_keyring() -> None:
    """Have no session keys of whoever started us, and none in common with other machines."""
    join = 1
    # Some kernels and seccomp filters know no keys; then there are none to be had.
    _libc.syscall(_SYS_KEYCTL, join, None)


def forget_capabilities() -> None:
    """Take from later exec'ed programs every capability that a container would not have."""
    for capability in range(64):
        if capability in _KEPT_CAPABILITIES:
            continue
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL:
                return  # Past the last capability that this kernel knows.
            _checked(-1, "prctl(CAPBSET_DROP)")


def join_namespaces(pid: int, namespaces: int = MACHINE_NAMESPACES) -> None:
    """Enter these namespaces of a process at once; for its pid namespace: our later children."""
    process = os.pidfd_open(pid)
    try:
        _checked(_libc.setns(process, namespaces), f"setns to those of process {pid}")
    finally:
        os.close(process)


def unshare(namespaces: int) -> None:
    """Leave these namespaces for new ones."""
    _checked(_libc.unshare(namespaces), f"unshare of {namespaces:#x}")


def mount_disks(disks: list[tuple[str, str]]) -> None:
    """Mount each device with ext4 at its directory, for us and our later children only."""
    unshare(_NEW_MOUNTS)
    _mount("none", "/", "", _REC | _SLAVE, "")
    for device, directory in disks:
        # Space that becomes free is given back, and that of no inode yet is not taken.
        _mount(device, directory, "ext4", 0, "discard,noinit_itable")


def _mount(device: str, directory: str, kind: str, flags: int, data: str) -> None:
    arguments = (os.fsencode(device), os.fsencode(directory), kind.encode())
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode())
    _checked(result, f"mount of {device} at {directory}")


def fork_into(cgroup: int | None) -> int:
    """Fork, the child being born in a cgroup (version 2, open directory).

    Moving a process between cgroups takes a lock that waits for an RCU grace period, 4 to 12
    ms; a birth takes none. Kernels before 5.7 and some seccomp filters lack clone3: there the
    child moves.
    """
    if cgroup is None:
        return os.fork()
    arguments = struct.pack("=11Q", _CLONE_INTO_CGROUP, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    pid: int = _libc.syscall(_SYS_CLONE3, arguments, len(arguments))
    if pid >= 0:
        return pid
    if ctypes.get_errno() not in {errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG}:
        _checked(pid, "clone3")
    pid = os.fork()
    if pid == 0:
        procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
        os.write(procs, b"0")
        os.close(procs)
    return pid


def make_tun(devices: int, name: str, mtu: int) -> tuple[int, int]:
    """Make a network interface whose packets a descriptor gives and takes.

    It belongs to the network namespace that the caller is in.

    Args:
        devices: The directory /dev/net, open: its path may have no meaning here.
        name: Of the interface.
        mtu: Largest packet, in bytes.

    Returns:
        The descriptor, non-blocking, a packet for each read and write; and the interface's index.
    """
    set_interface, tun, no_information, up, newlink, mtu_attribute = 0x400454CA, 1, 0x1000, 1, 16, 4
    device = os.open("tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=devices)
    try:
        request = struct.pack("16sH22x", name.encode(), tun | no_information)
        fcntl.ioctl(device, set_interface, request)
        index = socket.if_nametoindex(name)
        body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, up, up)
        body += struct.pack("=HHI", 8, mtu_attribute, mtu)
        _change_network(newlink, body, f"interface {name}", create=False)
    except BaseException:
        os.close(device)
        raise
    return device, index


def add_address(address: str, interface: int = LOOPBACK) -> None:
    """Give an interface of this network namespace one more IPv6 address."""
    _change_network(_NEW_ADDRESS, _address(address, interface), f"address {address}")


def remove_address(address: str, interface: int) -> None:
    """Take an IPv6 address from an interface."""
    body = _address(address, interface)
    _change_network(_DELETE_ADDRESS, body, f"address {address}", create=False)


def add_route(network: str, prefix_bits: int, interface: int) -> None:
    """Have packets for an IPv6 network leave through an interface."""
    body = _route(network, prefix_bits, _UNICAST) + struct.pack("=HHi", 8, _OUT, interface)
    _change_network(_NEW_ROUTE, body, f"route to {network}/{prefix_bits}")


def block_network(address: str, prefix_bits: int) -> None:
    """Make a network unreachable from this network namespace."""
    body = _route(address, prefix_bits, _UNREACHABLE)
    _change_network(_NEW_ROUTE, body, f"unreachable route to {address}/{prefix_bits}")


def disown_address(address: str, interface: int) -> None:
    """Take nothing more for an address of an interface, but answer for it that it is nobody's.

    Connections to it stay; with IPv4, nothing is answered.
    """
    body = _local_route(address, interface)
    _change_network(_DELETE_ROUTE, body, f"local route to {address}", create=False)
    block_network(address, ip_address(address).max_prefixlen)


def own_address(address: str, interface: int) -> None:
    """Undo `disown_address`."""
    _change_network(_NEW_ROUTE, _local_route(address, interface), f"local route to {address}")
    body = _route(address, ip_address(address).max_prefixlen, _UNREACHABLE)
    _change_network(_DELETE_ROUTE, body, f"unreachable route to {address}", create=False)


def _address(address: str, interface: int) -> bytes:
    nodad = 0x02
    packed = IPv6Address(address).packed
    attributes = b"".join(struct.pack("=HH", 20, kind) + packed for kind in (1, 2))
    return struct.pack("=BBBBi", socket.AF_INET6, 128, nodad, 0, interface) + attributes


def _local_route(address: str, interface: int) -> bytes:
    found = ip_address(address)
    body = _route(address, found.max_prefixlen, _LOCAL)
    body += struct.pack("=HHi", 8, _OUT, interface)
    if found.version == 4:
        body += struct.pack("=HH", 8, _PREFERRED_SOURCE) + found.packed
    return body


def _route(network: str, prefix_bits: int, kind: int) -> bytes:
    """The head of a request about a route, and where to that is."""
    packed = ip_address(network).packed
    family = socket.AF_INET6 if len(packed) == 16 else socket.AF_INET
    static, kernel, universe, host, main_table, local_table = 4, 2, 0, 254, 254, 255
    table, protocol, scope = main_table, static, universe
    if kind == _LOCAL:
        table, protocol = local_table, kernel
        scope = host if family == socket.AF_INET else universe
    body = struct.pack("=BBBBBBBBI", family, prefix_bits, 0, 0, table, protocol, scope, kind, 0)
    return body + struct.pack("=HH", 4 + len(packed), _DESTINATION) + packed


def _change_network(kind: int, body: bytes, what: str, *, create: bool = True) -> None:
    """Send one request of rtnetlink(7) and see how it went; what is there already is fine."""
    flags = 0x1 | 0x4 | (0x400 if create else 0)  # request, acknowledge, create
    head = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(head + body)
        answer = netlink.recv(4096)
    (number,) = struct.unpack_from("=i", answer, 16)
    if -number not in {0, errno.EEXIST}:
        raise OSError(-number, f"{what}: {os.strerror(-number)}")
