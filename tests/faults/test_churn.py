"""Ten thousand starts by clients that kill, leave, come back and vanish: every status true, every byte counted.

SEED repeats a run as far as the order of events on a machine can be repeated.
"""

import asyncio
import collections
import itertools
import os
import random
import signal
import time

from agent import AgentCase
from connect import Client, Connection, Refused, Told, command, sh

STARTS = int(os.environ.get("STARTS", 10_000))
CLIENTS = 32
# The agent keeps what ended processes were, up to a fixed number of them, and its allocator keeps some of what was
# freed. Less than the output of these runs by two orders of magnitude.
MAX_GROWTH_KIB = 24 * 1024

# Numbered lines of eight bytes: whoever sees two of them knows where in the output they stand.
COUNT_FROM = 1_000_000
# Writes them one by one and never ends by itself.
COUNTER = f"i={COUNT_FROM}; while [ $i -lt {COUNT_FROM + 2000} ]; do echo $i; i=$((i+1)); done; exec sleep 1000"
SIGNALS = {signal.SIGTERM: "signal: terminated", signal.SIGKILL: "signal: killed"}


def lines(place: int, length: int) -> bytes:
    """This part of the numbered lines."""
    first, last = COUNT_FROM + place // 8, COUNT_FROM + (place + length) // 8
    return b"".join(b"%d\n" % number for number in range(first, last + 1))[place % 8 :][:length]


def place_of(piece: bytes) -> int:
    """The offset of a piece of numbered lines."""
    newline = piece.index(b"\n")
    number = int(piece[newline + 1 : newline + 8])
    return (number - COUNT_FROM) * 8 - newline - 1


class Churn(AgentCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
        self.chance = random.Random(self.seed)
        self.statuses = collections.Counter()
        self.received = 0
        self.serials = itertools.count()
        self.pss_before = self.agent.pss_kib()

    def count(self, scenario: str, *told: Told) -> None:
        self.statuses[scenario] += 1
        self.received += sum(len(each.stdout) + len(each.stderr) + len(each.pty) for each in told)

    async def test_every_status_is_true_and_every_byte_is_counted(self):
        turns = itertools.islice(itertools.cycle(self.scenarios()), STARTS)
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self.work(turns))
        self.assertEqual(sum(self.statuses.values()), STARTS)
        await self.assert_as_before()
        growth = self.agent.pss_kib() - self.pss_before
        print(f"seed {self.seed}: {self.received} bytes; PSS grew by {growth} KiB; {dict(self.statuses)}", flush=True)
        self.assertLess(growth, MAX_GROWTH_KIB)

    def scenarios(self) -> list:
        """What a round of starts is; twenty of them."""
        return (
            [self.stays] * 4
            + [self.is_absent]
            + [self.in_a_terminal] * 2
            + [self.kills_in_the_middle] * 3
            + [self.kills_behind_a_full_pipe]
            + [self.leaves_at_a_known_place] * 4
            + [self.leaves_in_the_middle] * 2
            + [self.leaves_and_kills]
            + [self.shares]
            + [self.vanishes_while_starting]
        )

    async def work(self, turns) -> None:
        client = self.agent.client()
        scenario = None
        try:
            for scenario in turns:
                await scenario(client)
        except BaseException as error:
            error.add_note(f"in {scenario.__name__}, seed {self.seed}")
            raise
        finally:
            client.close()

    async def stays(self, client: Client) -> None:
        out, err, code = self.chance.randrange(1, 4000), self.chance.randrange(1, 4000), self.chance.randrange(256)
        told = await client.run(sh(f"printf %0{out}d 0; printf %0{err}d 0 >&2; exit {code}"))
        self.assertEqual((len(told.stdout), len(told.stderr), told.status), (out, err, f"exit status {code}"))
        self.count("stays", told)

    async def is_absent(self, client: Client) -> None:
        name, code = self.chance.choice([("no-such-program", 127), ("/etc/passwd", 126), ("/no/such", 127)])
        told = await client.run(command(name))
        self.assertEqual(told.status, f"exit status {code}")
        self.assertIn(name.encode(), told.stderr)
        self.count("is absent", told)

    async def in_a_terminal(self, client: Client) -> None:
        count, code = self.chance.randrange(1, 2000), self.chance.randrange(256)
        told = await client.run(sh(f"printf %0{count}d 0; exit {code}", pty={}))
        self.assertEqual((bytes(told.pty), told.status), (b"0" * count, f"exit status {code}"))
        self.count("in a terminal", told)

    async def kills_in_the_middle(self, client: Client) -> None:
        """A prefix of what the program would have written, without a hole, then the signal that was sent."""
        stream, pid = await client.start(sh(COUNTER))
        told, enough = Told(), self.chance.randrange(4000)
        while len(told.stdout) < enough:
            told.add(await stream.next())
        number = self.chance.choice(list(SIGNALS))
        await client.signal(pid, number)
        await told.follow(stream)
        self.assertEqual(told.status, SIGNALS[number])
        self.assert_lines(told.stdout, 0, exactly=True)
        self.count("kills in the middle", told)

    async def kills_behind_a_full_pipe(self, client: Client) -> None:
        """What was in the pipes before the signal arrives before the end, also if nobody was connected."""
        count = self.chance.randrange(30_000, 60_000)
        stream, pid = await client.start(sh(f"head -c {count} /dev/zero; echo done >&2; exec sleep 1000"))
        told, number = Told(), self.chance.choice(list(SIGNALS))
        while told.stderr != b"done\n":
            told.add(await stream.next())
        await client.signal(pid, number)
        await told.follow(stream)
        self.assertEqual((len(told.stdout), told.status), (count, SIGNALS[number]))
        self.count("kills behind a full pipe", told)

    async def leaves_at_a_known_place(self, client: Client) -> None:
        """Leaves when everything so far has arrived. What follows belongs to whoever connects next."""
        first, then = self.chance.randrange(1, 4000), self.chance.randrange(1, 4000)
        err, code = self.chance.randrange(1, 4000), self.chance.randrange(256)
        script = f"printf %0{first}d 0; read go; printf %0{err}d 0 >&2; printf %0{then}d 0; exit {code}"
        stream, pid = await client.start(sh(script, stdin=True))
        before = Told()
        while len(before.stdout) < first:
            before.add(await stream.next())
        # Some come and go again for nothing.
        for _ in range(self.chance.randrange(3)):
            self.assertEqual(await stream.leave(), Told())
            stream = await client.connect(pid)
        self.assertEqual(await stream.leave(), Told())
        if self.chance.random() < 0.5:
            await client.write(pid, b"go\n")
            after = await Told().follow(await client.connect(pid))
        else:
            stream = await client.connect(pid)
            await client.write(pid, b"go\n")
            after = await Told().follow(stream)
        self.assertEqual((len(before.stdout), len(before.stderr)), (first, 0))
        self.assertEqual((len(after.stdout), len(after.stderr), after.status), (then, err, f"exit status {code}"))
        self.count("leaves at a known place", before, after)

    async def leaves_in_the_middle(self, client: Client) -> None:
        """What was on its way to a connection that was cut is lost; nothing else is, and nothing comes twice."""
        count, code = self.chance.randrange(10_000, 20_000), self.chance.randrange(256)
        stream, pid = await client.start(sh(f"seq {COUNT_FROM} {COUNT_FROM + count - 1}; exit {code}"))
        pieces, place = [Told()], 0
        for _ in range(self.chance.randrange(1, 4)):
            for _ in range(self.chance.randrange(4)):
                if (event := await stream.next()) is not None:
                    pieces[-1].add(event)
            if self.chance.random() < 0.5:
                rest = await stream.leave()
                pieces[-1].stdout += rest.stdout
            else:
                stream.reset()
            place = self.assert_lines(pieces[-1].stdout, place, exactly=len(pieces) == 1)
            stream = await client.connect(pid)
            pieces.append(Told())
        last = await pieces[-1].follow(stream)
        self.assertEqual(last.status, f"exit status {code}")
        place = self.assert_lines(last.stdout, place)
        if len(last.stdout) >= 16:
            self.assertEqual(place, count * 8)
        self.count("leaves in the middle", *pieces)

    async def leaves_and_kills(self, client: Client) -> None:
        """The output from the signal to the end, and how it ended, wait for the next client."""
        stream, pid = await client.start(sh(COUNTER))
        first, enough = Told(), self.chance.randrange(4000)
        while len(first.stdout) < enough:
            first.add(await stream.next())
        first.stdout += (await stream.leave()).stdout
        place = self.assert_lines(first.stdout, 0, exactly=True)
        number = self.chance.choice(list(SIGNALS))
        await client.signal(pid, number)
        last = await Told().follow(await client.connect(pid))
        self.assertEqual(last.status, SIGNALS[number])
        self.assert_lines(last.stdout, place)
        self.count("leaves and kills", first, last)

    async def shares(self, client: Client) -> None:
        """Two clients of one process get the same."""
        count, code = self.chance.randrange(1, 100_000), self.chance.randrange(256)
        one, pid = await client.start(sh(f"read go; head -c {count} /dev/zero; exit {code}", stdin=True))
        two = await client.connect(pid)
        await client.write(pid, b"go\n")
        told = await asyncio.gather(Told().follow(one), Told().follow(two))
        for each in told:
            self.assertEqual((len(each.stdout), each.status), (count, f"exit status {code}"))
        self.count("shares", *told)

    async def vanishes_while_starting(self, client: Client) -> None:
        """Nobody has seen the start event. If the program was started, it ran to its end."""
        tag, code = f"vanished-{next(self.serials)}", self.chance.randrange(256)
        connection = await Connection.open(self.agent.port)
        await client.send(connection, "Start", sh(f"printf %0100d 0; exit {code}", tag=tag), {})
        connection.reset()
        try:
            told = await Told().follow(await client.stream("Connect", {"process": {"tag": tag}}))
            self.assertEqual(told.status, f"exit status {code}")
            # All or nothing: the connection that was reset may have been given it.
            self.assertIn(len(told.stdout), (0, 100))
            self.count("vanishes while starting", told)
        except Refused as refused:
            self.assertEqual(refused.code, "not_found")
            self.count("vanishes before starting")

    def assert_lines(self, piece: bytearray, place: int, exactly: bool = False) -> int:
        """A piece is numbered lines from this place or from a later one. Returns where it ends."""
        if exactly:
            found = place
        elif len(piece) < 16:
            return place + len(piece)
        else:
            found = place_of(bytes(piece[:16]))
            self.assertGreaterEqual(found, place, "bytes came twice")
        self.assertEqual(bytes(piece), lines(found, len(piece)))
        return found + len(piece)
