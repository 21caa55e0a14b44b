from __future__ import annotations

import asyncio
import os
import resource
import socket

from pytest_flymachines.emulator.proxy.listener import Listener


def test_a_full_table_of_descriptors_is_rested_out() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> tuple[int, int]:
        served = 0

        async def serve(visitor: socket.socket) -> None:
            nonlocal served
            served += 1
            visitor.close()

        listener = Listener.at(serve, "127.0.0.1")
        with socket.create_connection(listener.where):
            lowest_free = os.dup(0)
            os.close(lowest_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
            try:
                await asyncio.sleep(0.05)
                while_full = served
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            async with asyncio.timeout(10):
                while not served:
                    await asyncio.sleep(0.01)
        await listener.close()
        return while_full, served

    assert asyncio.run(run()) == (0, 1)


def test_closing_twice_and_while_resting_is_harmless() -> None:
    async def run() -> None:
        async def serve(visitor: socket.socket) -> None:
            visitor.close()

        listener = Listener.at(serve, "127.0.0.1")
        await listener.close()
        await listener.close()
        listener._resume()

    asyncio.run(run())
