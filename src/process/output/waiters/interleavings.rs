//! Every order in which a process and its clients can meet at the lock: appends, waits for room, ticks, subscriptions,
//! takes, leavings, the end, and the wake-ups that each of them hands out, which happen later, one by one.
//!
//! The states that can be reached are visited once each. In every one of them nobody may sleep whose time has come,
//! and everybody must be able to get to the end from all of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use std::{
    collections::HashSet,
    sync::Arc,
    task::{Wake, Waker},
};

use super::*;
use crate::process::log::{CHUNK_COST_BYTES, CHUNK_LIMIT_BYTES, data};

const CHUNK_BYTES: usize = CHUNK_COST_BYTES + 1;

/// Room for a chunk as long as no more than two are waited for; history of one.
const LIMITS: Limits = Limits { budget: 2 * CHUNK_BYTES + CHUNK_COST_BYTES + CHUNK_LIMIT_BYTES, history: CHUNK_BYTES };

/// Whose waker it is.
struct Name;

impl Wake for Name {
    fn wake(self: Arc<Self>) {}
}

/// What a scenario is about.
struct Scenario {
    /// How many chunks the process writes before it ends.
    chunks: u8,
    limits: Limits,
    /// How each client subscribes: plainly, or from an offset if that much is written by then.
    clients: Vec<Option<u64>>,
    /// Clients that may leave at any time.
    may_leave: Vec<bool>,
    /// One waker for the process, then one for each client.
    wakers: Vec<Waker>,
}

#[derive(Clone, Debug)]
struct World {
    waiters: Waiters,
    written: u8,
    writer: Writer,
    clients: Vec<Client>,
    /// Wake-ups that were handed out and have not happened yet.
    in_flight: Vec<usize>,
    /// Everything before was received by somebody.
    received: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Writer {
    Runs,
    HasRoom,
    Sleeps,
    Ended,
}

#[derive(Clone, Debug)]
enum Client {
    Absent,
    /// Its cursor, the next byte it has to be told, whether the byte before is not received yet, whether it sleeps.
    Here {
        id: CursorId,
        next: u64,
        holds: bool,
        sleeps: bool,
    },
    Gone,
}

impl Scenario {
    fn new(chunks: u8, limits: Limits, clients: &[Option<u64>], may_leave: &[bool]) -> Self {
        let wakers = (0..=clients.len()).map(|_| Waker::from(Arc::new(Name))).collect();
        Self { chunks, limits, clients: clients.to_vec(), may_leave: may_leave.to_vec(), wakers }
    }

    /// Visits every state; their number.
    fn explore(&self) -> usize {
        let start = World {
            waiters: Waiters::default(),
            written: 0,
            writer: Writer::Runs,
            clients: vec![Client::Absent; self.clients.len()],
            in_flight: Vec::new(),
            received: 0,
        };
        let mut seen = HashSet::new();
        let mut open = vec![start];
        let mut complete = 0;
        while let Some(world) = open.pop() {
            if !seen.insert(world.key(self)) {
                continue;
            }
            self.nobody_sleeps_who_should_not(&world);
            let next = self.successors(&world);
            if next.is_empty() {
                assert_eq!(world.writer, Writer::Ended, "the process is stuck: {world:?}");
                let gone = |client: &Client| matches!(client, Client::Gone);
                assert!(world.clients.iter().all(gone), "a client waits for ever: {world:?}");
                complete += 1;
            }
            open.extend(next);
        }
        assert!(complete > 0);
        seen.len()
    }

    /// Every state that may follow.
    fn successors(&self, world: &World) -> Vec<World> {
        let mut next = Vec::new();
        for index in 0..world.in_flight.len() {
            let mut world = world.clone();
            let who = world.in_flight.remove(index);
            world.wake(who);
            next.push(world);
        }
        match world.writer {
            Writer::Runs => next.push(self.write_or_wait(world.clone())),
            Writer::HasRoom => next.push(self.append(world.clone())),
            Writer::Sleeps if world.waiters.log.is_waited_on() => next.push(self.tick(world.clone())),
            Writer::Sleeps | Writer::Ended => {}
        }
        for index in 0..world.clients.len() {
            match world.clients[index] {
                Client::Absent => next.push(self.subscribe(world.clone(), index)),
                Client::Here { id, sleeps, .. } => {
                    if !sleeps {
                        next.push(self.take(world.clone(), index));
                    }
                    if self.may_leave[index] {
                        next.push(self.leave(world.clone(), index, id));
                    }
                }
                Client::Gone => {}
            }
        }
        next
    }

    fn write_or_wait(&self, mut world: World) -> World {
        if world.written == self.chunks {
            world.writer = Writer::Ended;
            let end = EndEvent { exited: true, ..Default::default() };
            let wakers = world.waiters.finish(end);
            self.send(&mut world, &wakers);
            return world;
        }
        let room = world.waiters.poll_room(&self.wakers[0], self.limits);
        world.writer = if room.is_ready() { Writer::HasRoom } else { Writer::Sleeps };
        world
    }

    fn append(&self, mut world: World) -> World {
        // Others may have come since, but nobody takes the room away: the one that writes is alone.
        let output = Output::Stdout(vec![world.written].into());
        world.written += 1;
        world.writer = Writer::Runs;
        let wakers = world.waiters.append(output, self.limits);
        self.send(&mut world, &wakers);
        world
    }

    /// The process runs by itself afterwards, as after any time-out.
    fn tick(&self, mut world: World) -> World {
        let wakers = world.waiters.tick(self.limits);
        self.send(&mut world, &wakers);
        world.writer = Writer::Runs;
        world
    }

    fn subscribe(&self, mut world: World, index: usize) -> World {
        let log = &mut world.waiters.log;
        let from = self.clients[index].map(|from| from.min(u64::from(world.written)));
        let oldest = u64::from(world.written) - log.chunk_count() as u64;
        let (id, next) = match from {
            None => log.subscribe(),
            Some(from) => log.subscribe_from(from).unwrap(),
        };
        assert_eq!(next, from.unwrap_or(world.received).max(oldest));
        world.clients[index] = Client::Here { id, next, holds: false, sleeps: false };
        world
    }

    fn take(&self, mut world: World, index: usize) -> World {
        let Client::Here { id, next, holds, .. } = world.clients[index] else { panic!("nobody there") };
        if holds {
            world.received = world.received.max(next);
        }
        let (taken, wakers) = world.waiters.poll_next(id, &self.wakers[index + 1], self.limits);
        let alone = self.clients.len() == 1;
        match taken {
            Taken::Output(output, offset) => {
                assert_eq!(offset, next, "a gap or a repetition");
                assert_eq!(data(&output).as_ref(), [u8::try_from(offset).unwrap()]);
                world.clients[index] = Client::Here { id, next: next + 1, holds: true, sleeps: false };
            }
            Taken::Skipped(bytes) => {
                assert!(!alone && bytes > 0);
                world.clients[index] = Client::Here { id, next: next + bytes, holds: false, sleeps: false };
            }
            Taken::End(_) => {
                assert_eq!((world.writer, next), (Writer::Ended, u64::from(self.chunks)), "output before the end");
                self.send(&mut world, &wakers);
                return self.leave(world, index, id);
            }
            Taken::Nothing => {
                assert_eq!(next, u64::from(world.written));
                world.clients[index] = Client::Here { id, next, holds: false, sleeps: true };
            }
        }
        self.send(&mut world, &wakers);
        world
    }

    fn leave(&self, mut world: World, index: usize, id: CursorId) -> World {
        let wakers = world.waiters.unsubscribe(id, self.limits);
        world.clients[index] = Client::Gone;
        self.send(&mut world, &wakers);
        world
    }

    fn send(&self, world: &mut World, wakers: &[Waker]) {
        let who = wakers.iter().map(|waker| self.wakers.iter().position(|known| known.will_wake(waker)).unwrap());
        world.in_flight.extend(who);
        world.in_flight.sort_unstable();
        world.in_flight.dedup();
    }

    /// Looks at copies: whoever sleeps and is not about to be woken would find nothing.
    fn nobody_sleeps_who_should_not(&self, world: &World) {
        let log = &world.waiters.log;
        assert!(log.cost() <= self.limits.budget, "{world:?}");
        if world.writer == Writer::Sleeps && !world.in_flight.contains(&0) {
            assert!(log.has_subscribers(), "the process waits for nobody: {world:?}");
            let for_somebody = log.is_waited_on() && log.has_room(self.limits);
            assert!(!for_somebody && !log.has_room(self.limits.lower()), "the process sleeps: {world:?}");
        }
        for (index, client) in world.clients.iter().enumerate() {
            if let Client::Here { id, sleeps: true, .. } = client
                && !world.in_flight.contains(&(index + 1))
            {
                let (taken, _) = world.waiters.clone().poll_next(*id, &self.wakers[index + 1], self.limits);
                assert_eq!(taken, Taken::Nothing, "client {index} sleeps: {world:?}");
            }
        }
    }
}

impl World {
    fn wake(&mut self, who: usize) {
        if who > 0 {
            if let Client::Here { sleeps, .. } = &mut self.clients[who - 1] {
                *sleeps = false;
            }
        } else if self.writer == Writer::Sleeps {
            self.writer = Writer::Runs;
        }
    }

    /// Everything that matters for what can follow.
    fn key(&self, scenario: &Scenario) -> String {
        let name = |waker: &Waker| scenario.wakers.iter().position(|known| known.will_wake(waker));
        let readers: Vec<_> = self.waiters.readers.iter().map(name).collect();
        let waiting: Vec<_> = self.waiters.clients.iter().map(|(id, waker)| (id, name(waker))).collect();
        let Self { waiters: Waiters { log, .. }, written, writer, clients, in_flight, received } = self;
        format!("{log:?} {readers:?} {waiting:?} {written} {writer:?} {clients:?} {in_flight:?} {received}")
    }
}

#[test]
fn a_client_alone() {
    let states = Scenario::new(8, LIMITS, &[None], &[false]).explore();
    assert!(states > 100, "{states}");
}

#[test]
fn a_client_that_may_leave_and_another() {
    let states = Scenario::new(4, LIMITS, &[None, None], &[true, false]).explore();
    assert!(states > 1_000, "{states}");
}

#[test]
fn a_client_that_asks_for_what_others_had() {
    let states = Scenario::new(4, LIMITS, &[None, Some(1)], &[true, true]).explore();
    assert!(states > 1_000, "{states}");
}

#[test]
fn three_clients() {
    let states = Scenario::new(3, LIMITS, &[None, None, Some(0)], &[true, false, false]).explore();
    assert!(states > 10_000, "{states}");
}
