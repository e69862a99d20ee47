"""Programs that write for ever while nobody reads."""

import asyncio
import time

from agent import AgentCase, until
from connect import command

SECONDS = 30
OTHERS = 9
# Memory is measured once this much has gone through: by then every log has been full.
SETTLED_BYTES = 64 << 20
# A log's budget is 4 MiB for each process; the rest is bookkeeping and the allocator's.
MAX_KIB_EACH = 6 * 1024
SLACK_KIB = 4 * 1024
# Gigabytes pass meanwhile: what leaks would not stay below this.
FLAT_KIB = 16 * 1024

CROWD = 100
# 64 MiB for all logs together, then 128 KiB for each, and what the connections hold besides.
CROWD_KIB = 64 * 1024 + CROWD * (128 + 640)


class NobodyReads(AgentCase):
    async def test_endless_output_without_a_reader_keeps_memory_flat(self):
        """`yes` alone for half a minute, then ten of them for another half."""
        start = self.agent.pss_kib()
        pids = [await self.abandoned()]
        alone = await self.watch()
        self.assertLess(max(alone), start + MAX_KIB_EACH + SLACK_KIB)
        pids += [await self.abandoned() for _ in range(OTHERS)]
        together = await self.watch()
        self.assertLess(max(together), start + len(pids) * MAX_KIB_EACH + SLACK_KIB)
        # Flat: the second half of the time adds nothing to the first.
        for samples in (alone, together):
            half = len(samples) // 2
            self.assertLess(max(samples[half:]), max(samples[:half]) + FLAT_KIB, samples)
        print(f"PSS {start} KiB, one {max(alone)} KiB, ten {max(together)} KiB", flush=True)
        self.assertEqual(sorted(await self.client.pids()), sorted(pids))

        for pid in pids:
            stream = await self.client.connect(pid)
            await self.client.signal(pid, 9)
            status = None
            while (event := await stream.next()) is not None:
                status = event.get("end", {}).get("status", status)
            stream.close()
            self.assertEqual(status, "signal: killed")
        self.client.close()
        await self.assert_as_before()

    async def abandoned(self) -> int:
        """A process whose only client has read some of its output and left."""
        stream, pid = await self.client.start(command("yes"))
        self.assertIn("data", await stream.next())
        await stream.leave()
        return pid

    async def watch(self) -> list[int]:
        """PSS in KiB while the agent goes on reading, sampled for a while; it is the sampling that takes the time."""
        begun = self.agent.bytes_read()
        await until(lambda: self.agent.bytes_read() > begun + SETTLED_BYTES, "the agent to read what nobody wants")
        samples, until_then = [], time.monotonic() + SECONDS
        while time.monotonic() < until_then or len(samples) < 10:
            samples.append(self.agent.pss_kib())
            await asyncio.sleep(0.2)
        self.assertGreater(self.agent.bytes_read(), begun + SETTLED_BYTES)
        return samples


class StalledCrowd(AgentCase):
    async def test_a_hundred_stalled_clients_hold_no_more_than_is_promised(self):
        """Each has a program of its own that writes for ever: the programs wait, and the agent's memory is bounded."""
        start = self.agent.pss_kib()
        streams = []
        for _ in range(CROWD):
            stream = await self.client.stream("Start", command("yes"), receive_buffer=4096)
            self.assertIn("start", await stream.next())
            streams.append(stream)
        await until(self.stands_still, "the programs to wait")
        growth = self.agent.pss_kib() - start
        print(f"PSS grew by {growth} KiB with {CROWD} stalled clients", flush=True)
        self.assertLess(growth, CROWD_KIB)
        for stream in streams:
            stream.reset()
        for pid in await self.client.pids():
            await self.client.signal(pid, 9)
        self.client.close()
        await self.assert_as_before()

    def stands_still(self) -> bool:
        """Nothing was read between two looks."""
        last, self.last_read = getattr(self, "last_read", None), self.agent.bytes_read()
        return self.last_read == last and all(state == "S" for state in self.agent.children().values())
