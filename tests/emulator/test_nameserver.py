"""The name server alone, asked by bytes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import msgspec
import pytest

from pytest_flymachines.emulator.config import MachineConfig
from pytest_flymachines.emulator.ids import machine_id, private_ip
from pytest_flymachines.emulator.model import App, IpAssignment, Machine
from pytest_flymachines.emulator.nameserver import NameServer
from pytest_flymachines.emulator.store import Store
from tests.emulator.fidelity import shows

UDP, TCP = 512, 65535


@pytest.fixture
def store() -> Store:
    """Three apps of one network, the first with 60 machines, and one of another network."""
    store = Store()
    for name, network in (("web", "default"), ("db", "default"), ("far", "own"), ("bare", "own")):
        app = App(
            id=name, number=1, name=name, org="personal", network=network, created_ms=1, secrets={}
        )
        store.put(app)
    for _ in range(60):
        add(store, "web")
    return store


def add(store: Store, app: str, region: str = "ord", **fields: Any) -> Machine:
    network = store.apps[app].network
    number = machine_id()
    config = {"image": "x", **fields.pop("config", {})}
    machine = Machine(
        id=number,
        name=number,
        app=app,
        region=region,
        instance_id="01",
        config=msgspec.convert(config, MachineConfig),
        private_ip=private_ip("personal", network, number),
        digest="",
        **{"state": "started", **fields},
    )
    store.put(machine)
    return machine


def ask(store: Store, asking: Machine, query: bytes, room: int = UDP, **options: Any) -> Any:
    server = NameServer(store, **{"forwards": False, **options})
    answer = asyncio.run(server.answer(query, asking.private_ip, room=room))
    return answer and dns.message.from_wire(answer)


def addresses(store: Store, asking: Machine, name: str) -> set[str] | None:
    """What AAAA records a name has; None if there is no such name."""
    answer = ask(store, asking, dns.message.make_query(name, "AAAA").to_wire(), TCP)
    if answer.rcode() == dns.rcode.NXDOMAIN:
        return None
    assert answer.rcode() == dns.rcode.NOERROR
    return {item.address for rrset in answer.answer for item in rrset}


def text(store: Store, asking: Machine, name: str) -> str:
    answer = ask(store, asking, dns.message.make_query(name, "TXT").to_wire(), TCP)
    (record,) = answer.answer[0]
    return b"".join(record.strings).decode()


def test_answer_that_does_not_fit_is_cut_off_and_whole_by_tcp(store: Store) -> None:
    asking = add(store, "db")
    everyone = {machine.private_ip for machine in store.machines_of("web")}
    query = dns.message.make_query("web.internal", "AAAA")
    short = ask(store, asking, query.to_wire())
    assert short.flags & dns.flags.TC
    assert short.answer == []
    whole = ask(store, asking, query.to_wire(), TCP)
    assert {item.address for item in whole.answer[0]} == everyone
    query.use_edns(payload=4096)
    assert len(ask(store, asking, query.to_wire()).answer[0]) == 60


def test_long_texts_are_joined_from_pieces(store: Store) -> None:
    asking = add(store, "db")
    machines = list(store.machines_of("web"))
    assert text(store, asking, "vms.web.internal") == ",".join(f"{m.id} ord" for m in machines)


def test_only_started_and_registered_machines_are_there(store: Store) -> None:
    asking = add(store, "db", state="stopped")
    assert addresses(store, asking, "db.internal") == set()
    hidden = add(store, "db", config={"dns": {"skip_registration": True}})
    assert addresses(store, asking, f"{hidden.id}.vm.db.internal") is None
    shown = add(store, "db")
    assert addresses(store, asking, "DB.internal") == {shown.private_ip}
    assert text(store, asking, "_instances.internal").count("app=db") == 1


def test_other_networks_are_not_there(store: Store) -> None:
    far, web = add(store, "far"), next(store.machines_of("web"))
    assert addresses(store, web, "far.internal") is None
    assert addresses(store, web, f"{far.id}.vm.far.internal") is None
    assert addresses(store, far, "web.internal") is None
    assert addresses(store, far, "far.internal") == {far.private_ip}
    assert text(store, far, "_apps.internal") == "bare,far"
    assert text(store, web, "_apps.internal") == "db,web"
    assert addresses(store, far, "bare.internal") == set()


def test_names_by_region_group_metadata_and_nearness(store: Store) -> None:
    asking = add(store, "db", region="fra")
    metadata = {"fly_process_group": "worker", "role": "primary"}
    near = add(store, "db", region="ams", config={"metadata": metadata})
    add(store, "db", region="syd")
    only = {near.private_ip}
    assert addresses(store, asking, "ams.db.internal") == only
    assert addresses(store, asking, "lhr.db.internal") is None
    assert addresses(store, asking, "worker.process.db.internal") == only
    assert addresses(store, asking, "primary.role.kv._metadata.db.internal") == only
    assert addresses(store, asking, "top1.nearest.of.db.internal") == {asking.private_ip}
    nearest = {asking.private_ip, near.private_ip}
    assert addresses(store, asking, "top2.nearest.of.db.internal") == nearest
    assert text(store, asking, "regions.db.internal") == "ams,fra,syd"


@shows("6PN", "`all.vms`, `all.regions`, `all._instances`: machines in any state", "docs")
def test_names_of_machines_in_any_state(store: Store) -> None:
    asking = add(store, "db", region="fra")
    stopped = add(store, "db", region="ams", state="stopped")
    add(store, "db", region="syd", state="destroyed", destroyed_ms=1)
    assert text(store, asking, "vms.db.internal") == f"{asking.id} fra"
    both = {f"{asking.id} fra", f"{stopped.id} ams"}
    assert set(text(store, asking, "all.vms.db.internal").split(",")) == both
    assert text(store, asking, "all.regions.db.internal") == "ams,fra"
    assert stopped.id not in text(store, asking, "_instances.internal")
    assert stopped.id in text(store, asking, "all._instances.internal")
    assert addresses(store, asking, "global.db.internal") == {asking.private_ip}
    assert addresses(store, asking, "other._instances.internal") is None


def test_flycast_names_belong_to_the_network_of_the_address(store: Store) -> None:
    asking, far = add(store, "db"), add(store, "far")
    assert addresses(store, asking, "far.flycast") is None
    for number, network in enumerate(("", "own"), 1):
        ip = IpAssignment("1", f"fdaa::{number}", "private_v6", "global", "", False, 1, network)
        store.apps["far"].ips[ip.ip] = ip
    assert addresses(store, asking, "FAR.flycast") == {"fdaa::1"}
    assert addresses(store, far, "far.flycast") == {"fdaa::2"}
    assert addresses(store, asking, "flycast") is None


def test_names_have_no_ipv4_and_answer_what_was_asked(store: Store) -> None:
    asking = next(store.machines_of("web"))
    answer = ask(store, asking, dns.message.make_query("db.internal", "A").to_wire())
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert answer.question[0].name.to_text() == "db.internal."


def test_strangers_get_no_names(store: Store) -> None:
    """An address that is no machine's has no network."""
    server = NameServer(store, forwards=False)
    query = dns.message.make_query("web.internal", "AAAA").to_wire()
    answer = asyncio.run(server.answer(query, "fdaa::99", room=UDP))
    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    "query", [b"", b"\x00" * 11, b"\xff" * 600, b"\x00\x01\x01\x00" + b"\x00" * 8, b"\xc0\x0c" * 30]
)
def test_nonsense_gets_no_answer(store: Store, query: bytes) -> None:
    assert ask(store, next(store.machines_of("web")), query) is None


def test_updates_are_not_implemented(store: Store) -> None:
    query = dns.message.make_query("web.internal", "AAAA")
    query.set_opcode(dns.opcode.STATUS)
    answer = ask(store, next(store.machines_of("web")), query.to_wire())
    assert answer.rcode() == dns.rcode.NOTIMP


class Elsewhere(asyncio.DatagramProtocol):
    """This computer's own name server: answers every query with one address."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].name.to_text())
        answer = dns.message.make_response(query)
        answer.set_rcode(dns.rcode.YXDOMAIN)
        self.transport.sendto(answer.to_wire(), addr)


def test_other_names_come_from_this_computers_own_name_servers(
    store: Store, tmp_path: Path
) -> None:
    asking = next(store.machines_of("web"))
    (tmp_path / "resolv.conf").write_text("# here\nsearch x\nnameserver 127.0.0.1\n")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        transport, elsewhere = await loop.create_datagram_endpoint(
            Elsewhere, local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        server = NameServer(store, forwards=True, resolv_conf=tmp_path / "resolv.conf", port=port)
        query = dns.message.make_query("example.com", "A").to_wire()
        answer = await server.answer(query, asking.private_ip, room=UDP)
        assert answer is not None
        assert dns.message.from_wire(answer).rcode() == dns.rcode.YXDOMAIN
        query = dns.message.make_query("no-such.internal", "A").to_wire()
        assert await server.answer(query, asking.private_ip, room=UDP)
        assert elsewhere.asked == ["example.com."]
        transport.close()

    asyncio.run(run())


def test_other_names_are_refused_where_machines_may_not_get_out(store: Store) -> None:
    query = dns.message.make_query("example.com", "A").to_wire()
    answer = ask(store, next(store.machines_of("web")), query)
    assert answer.rcode() == dns.rcode.REFUSED


def test_no_name_server_that_answers_is_a_failure(store: Store, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    query = dns.message.make_query("example.com", "A").to_wire()
    answer = ask(
        store,
        next(store.machines_of("web")),
        query,
        forwards=True,
        resolv_conf=tmp_path / "resolv.conf",
        port=9,
    )
    assert answer.rcode() == dns.rcode.SERVFAIL
