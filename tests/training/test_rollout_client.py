import asyncio
from types import SimpleNamespace

import pytest

from vgr_rl.training.rollout_client import GroupClient

PROMPT = SimpleNamespace(token_ids=[1, 2], features={}, image_ids=())


class Server:
    """Stands for a replica's actor: answers when told to."""

    def __init__(self):
        self.waiting = []
        self.generate_group = SimpleNamespace(remote=self._generate)

    def _generate(self, **request):
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return future


async def send(client, count):
    tasks = [asyncio.create_task(client.generate_group(PROMPT, 8, {})) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_groups_go_to_the_replica_with_the_fewest_in_flight():
    async def run():
        servers = [Server() for _ in range(3)]
        client = GroupClient(None, servers)
        tasks = await send(client, 6)
        assert [len(server.waiting) for server in servers] == [2, 2, 2]
        servers[1].waiting[0].set_result("done")
        await asyncio.sleep(0.01)
        tasks += await send(client, 1)
        assert [len(server.waiting) for server in servers] == [2, 3, 2]
        for server in servers:
            for future in server.waiting:
                if not future.done():
                    future.set_result("done")
        assert await asyncio.gather(*tasks) == ["done"] * 7

    asyncio.run(run())


def test_a_failed_request_frees_its_place():
    async def run():
        servers = [Server(), Server()]
        client = GroupClient(None, servers)
        (task,) = await send(client, 1)
        first = next(server for server in servers if server.waiting)
        first.waiting[0].set_exception(RuntimeError("engine died"))
        with pytest.raises(RuntimeError, match="engine died"):
            await task
        await send(client, 2)
        assert sorted(len(server.waiting) for server in servers) == [1, 2]
        assert len(first.waiting) == 2

    asyncio.run(run())


def test_turns_of_a_conversation_go_to_one_replica():
    client = GroupClient(None, [Server() for _ in range(4)])
    ids = [asyncio.run(client._acquire_server("conversation"))[0] for _ in range(5)]
    assert len(set(ids)) == 1
    assert len({asyncio.run(client._acquire_server(str(i)))[0] for i in range(50)}) == 4
