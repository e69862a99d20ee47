"""One client that reads nothing, among others that read."""

import asyncio
import hashlib
import re
import subprocess

from agent import AgentCase
from connect import Refused, Stream, Told, sh

# Lines of eight bytes, so that every place in the output looks different.
FIRST, LAST = 1_000_000, 9_388_607
TOTAL = (LAST - FIRST + 1) * 8
READERS = 9


class OneStalledAmongTen(AgentCase):
    async def read(self, stream: Stream) -> tuple[int, str, str]:
        """Length and checksum of the output, and the status."""
        count, checksum, told = 0, hashlib.sha256(), Told()
        while (event := await stream.next()) is not None:
            told.add(event)
            count += len(told.stdout)
            checksum.update(told.stdout)
            told.stdout.clear()
        stream.close()
        self.assertEqual(told.stderr, b"")
        return count, checksum.hexdigest(), told.status

    async def test_the_others_read_to_the_end_and_the_stalled_one_knows_what_it_missed(self):
        script = f"read go; seq {FIRST} {LAST}; exit 7"
        starter, pid = await self.client.start(sh(script, stdin=True))
        readers = [starter] + [await self.client.connect(pid) for _ in range(READERS - 1)]
        request = {"process": {"pid": pid}}
        stalled = await self.client.stream("Connect", request, receive_buffer=4096)
        self.assertIn("start", await stalled.next())

        await self.client.write(pid, b"go\n")
        results = await asyncio.gather(*map(self.read, readers))
        expected = subprocess.run(["seq", str(FIRST), str(LAST)], stdout=subprocess.PIPE, check=True).stdout
        self.assertEqual(len(expected), TOTAL)
        self.assertEqual(set(results), {(TOTAL, hashlib.sha256(expected).hexdigest(), "exit status 7")})
        self.assertEqual(await self.client.pids(), [])

        told, skipped = Told(), None
        try:
            await told.follow(stalled)
        except Refused as refused:
            self.assertEqual(refused.code, "data_loss", refused)
            named = re.match(rf"(\d+) bytes of the output of process {pid} were skipped", refused.message)
            self.assertIsNotNone(named, refused.message)
            skipped = int(named[1])
            stalled.close()
        self.assertEqual(bytes(told.stdout), expected[: len(told.stdout)], "the stalled client got something else")
        if skipped is None:
            self.assertEqual((len(told.stdout), told.status), (TOTAL, "exit status 7"))
        else:
            self.assertIsNone(told.end)
            self.assertEqual(len(told.stdout) + skipped, TOTAL)
        # Whoever asks later is told how it ended.
        self.assertEqual((await Told().follow(await self.client.connect(pid))).status, "exit status 7")
        self.client.close()
        await self.assert_as_before()
