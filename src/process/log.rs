//! What a process wrote and who has read how far: the plain data structure behind [`super::output`].
//!
//! # Model
//!
//! The log is a sequence of chunks, one for each read from the process. It never forgets where it is: chunks have
//! consecutive numbers and byte offsets, and each subscriber is a cursor, the number of the chunk it gets next.
//!
//! * *Delivered* is everything before the furthest position that any cursor has ever had. A new subscriber starts
//!   there: it gets what nobody has received yet, then everything that follows, and never a byte again that a client
//!   already had.
//! * A chunk is let go as soon as every cursor is past it and it is delivered.
//! * What is kept is limited by a budget in bytes, of which each chunk takes [`CHUNK_COST_BYTES`] besides its data.
//! * **Nobody subscribed:** a full log lets its oldest chunks go. The process never waits for a listener.
//! * **Somebody subscribed:** a full log has [room](Log::has_room) as long as the slowest cursor *that moves* is less
//!   than a budget behind. A cursor moves when it took something within the last [`PATIENCE`], or had nothing to
//!   take. Slow subscribers therefore slow the process down through its pipe and lose nothing. Once none moves, the
//!   furthest one is waited for, so that a single subscriber may pause for as long as it likes; another that stalled
//!   is left behind and [told](Taken::Skipped) how many bytes it missed.
//! * The end comes after the last chunk, for each cursor at its own time.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    proto::process::process_event::{EndEvent, data_event::Output},
    system::buffers::CHUNK_BYTES,
};

/// What a chunk costs besides its data: bookkeeping and the allocation.
pub(super) const CHUNK_COST_BYTES: usize = 96;

/// The largest chunk that is ever appended, in bytes.
pub(super) const CHUNK_LIMIT_BYTES: usize = CHUNK_BYTES;

/// How long the process and the other subscribers wait for one that does not take what is there for it. A client on
/// a slow line is not seen to move while the megabytes in its socket are on their way.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Names a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CursorId(u64);

/// What [`Log::take`] found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Taken {
    /// The next chunk.
    Output(Output),
    /// The cursor fell behind, and this many bytes are gone. It goes on with the oldest chunk that is left.
    Skipped(u64),
    /// The process has ended and everything before was taken.
    End(EndEvent),
    /// Nothing new.
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    chunks: VecDeque<Chunk>,
    /// Number of the first chunk in `chunks`.
    first: u64,
    /// Bytes of output so far.
    written: u64,
    /// What the chunks cost, in bytes.
    cost: usize,
    /// What all chunks ever have cost.
    total_cost: u64,
    cursors: Vec<Cursor>,
    next_cursor: u64,
    /// Number of the first chunk that nobody has taken.
    undelivered: u64,
    end: Option<EndEvent>,
}

#[derive(Debug)]
struct Chunk {
    output: Output,
    /// Bytes of output before this chunk.
    offset: u64,
    /// What all chunks before this one have cost.
    total_cost: u64,
}

#[derive(Debug)]
struct Cursor {
    id: u64,
    /// Number of the next chunk to take.
    next: u64,
    /// Bytes of output before that chunk.
    offset: u64,
    /// When it last took something, or last had nothing to take.
    moved: Instant,
}

impl Log {
    /// Whether the process may write on. Always true when nobody is subscribed. May become true by mere time.
    pub(super) fn has_room(&self, budget: usize, now: Instant) -> bool {
        let Some(awaited) = self.awaited(now) else { return true };
        let next = self.chunks.get(self.index_of(awaited));
        let behind = next.map_or(0, |chunk| self.total_cost - chunk.total_cost);
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        behind == 0 || behind.saturating_add(CHUNK_LIMIT_BYTES) <= budget
    }

    /// Adds what one read returned; empty reads add nothing.
    pub(super) fn append(&mut self, output: Output, budget: usize, now: Instant) {
        let length = data(&output).len();
        if length == 0 {
            return;
        }
        let number = self.first + self.chunks.len() as u64;
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.next >= number) {
            cursor.moved = now;
        }
        let chunk = Chunk { output, offset: self.written, total_cost: self.total_cost };
        self.written += length as u64;
        self.cost += chunk.cost();
        self.total_cost += chunk.cost() as u64;
        self.chunks.push_back(chunk);
        self.shrink(budget, now);
    }

    /// Lets the oldest chunks go until the rest fits, but none that is needed by a cursor that is waited for.
    pub(super) fn shrink(&mut self, budget: usize, now: Instant) {
        let keep_from = self.awaited(now).unwrap_or(u64::MAX);
        while self.cost > budget && self.first < keep_from && self.chunks.len() > 1 {
            self.drop_first();
        }
    }

    /// No chunk follows any more.
    pub(super) fn finish(&mut self, end: EndEvent) {
        self.end.get_or_insert(end);
    }

    pub(super) fn subscribe(&mut self, now: Instant) -> CursorId {
        let id = self.next_cursor;
        self.next_cursor += 1;
        let next = self.undelivered.max(self.first);
        let offset = self.chunks.get(self.index_of(next)).map_or(self.written, |chunk| chunk.offset);
        self.cursors.push(Cursor { id, next, offset, moved: now });
        CursorId(id)
    }

    pub(super) fn unsubscribe(&mut self, CursorId(id): CursorId) {
        self.cursors.retain(|cursor| cursor.id != id);
        self.release();
    }

    pub(super) fn has_subscribers(&self) -> bool {
        !self.cursors.is_empty()
    }

    /// The next thing for this cursor.
    pub(super) fn take(&mut self, CursorId(id): CursorId, now: Instant) -> Taken {
        let (first, written) = (self.first, self.written);
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.id == id) else { return Taken::Nothing };
        cursor.moved = now;
        if cursor.next < first {
            let resumes_at = self.chunks.front().map_or(written, |chunk| chunk.offset);
            let skipped = resumes_at - cursor.offset;
            (cursor.next, cursor.offset) = (first, resumes_at);
            return Taken::Skipped(skipped);
        }
        let index = usize::try_from(cursor.next - first).unwrap_or(usize::MAX);
        let Some(chunk) = self.chunks.get(index) else {
            return self.end.clone().map_or(Taken::Nothing, Taken::End);
        };
        let output = chunk.output.clone();
        cursor.next += 1;
        cursor.offset = chunk.offset + data(&output).len() as u64;
        self.undelivered = self.undelivered.max(cursor.next);
        self.release();
        Taken::Output(output)
    }

    /// What is kept, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// Lets go what nobody will ask for.
    fn release(&mut self) {
        let slowest = self.cursors.iter().map(|cursor| cursor.next).min().unwrap_or(u64::MAX);
        let needed_from = slowest.min(self.undelivered);
        while self.first < needed_from && !self.chunks.is_empty() {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.cost -= chunk.cost();
            self.first += 1;
        }
    }

    /// The position that the process must not run away from.
    fn awaited(&self, now: Instant) -> Option<u64> {
        let moving = self.cursors.iter().filter(|cursor| now.saturating_duration_since(cursor.moved) < PATIENCE);
        let slowest = moving.map(|cursor| cursor.next).min();
        slowest.or_else(|| self.cursors.iter().map(|cursor| cursor.next).max())
    }

    fn index_of(&self, number: u64) -> usize {
        usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX)
    }
}

impl Chunk {
    fn cost(&self) -> usize {
        CHUNK_COST_BYTES + data(&self.output).len()
    }
}

/// The bytes of an output event.
pub(super) fn data(output: &Output) -> &Bytes {
    let (Output::Stdout(data) | Output::Stderr(data) | Output::Pty(data)) = output;
    data
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a failed expectation is the test's failure"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Large enough that the fixed reserve for the next read leaves something to play with.
    const BUDGET: usize = CHUNK_LIMIT_BYTES + 1000;

    fn end() -> EndEvent {
        EndEvent { exit_code: 0, exited: true, status: "exit status 0".into(), error: None, details: None }
    }

    #[test]
    fn what_nobody_has_received_waits_and_is_not_told_twice() {
        let mut log = Log::default();
        let now = Instant::now();
        log.append(Output::Stdout("a".into()), BUDGET, now);
        let first = log.subscribe(now);
        assert_eq!(log.take(first, now), Taken::Output(Output::Stdout("a".into())));
        log.unsubscribe(first);
        log.append(Output::Stderr("b".into()), BUDGET, now);
        let second = log.subscribe(now);
        assert_eq!(log.take(second, now), Taken::Output(Output::Stderr("b".into())));
        assert_eq!(log.take(second, now), Taken::Nothing);
        log.finish(end());
        assert_eq!(log.take(second, now), Taken::End(end()));
        assert_eq!(log.cost(), 0);
    }

    #[test]
    fn one_stalled_subscriber_of_two_is_waited_for_a_while_and_then_told_what_it_missed() {
        let mut log = Log::default();
        let mut now = Instant::now();
        let (quick, stalled) = (log.subscribe(now), log.subscribe(now));
        let mut waited = 0;
        for _ in 0..20 {
            while !log.has_room(BUDGET, now) {
                waited += 1;
                now += PATIENCE;
            }
            log.append(Output::Stdout(vec![0; 10_000].into()), BUDGET, now);
            assert!(matches!(log.take(quick, now), Taken::Output(_)));
        }
        assert_eq!(waited, 1);
        let Taken::Skipped(skipped) = log.take(stalled, now) else { panic!("nothing was skipped") };
        let mut rest = 0;
        while let Taken::Output(output) = log.take(stalled, now) {
            rest += data(&output).len() as u64;
        }
        assert_eq!(skipped + rest, 200_000);
    }

    #[test]
    fn subscribers_of_different_pace_lose_nothing_as_long_as_they_move() {
        let mut log = Log::default();
        let mut now = Instant::now();
        let cursors = [log.subscribe(now), log.subscribe(now)];
        let mut taken = [0, 0];
        for step in 0..2_000 {
            now += PATIENCE / 10;
            while log.has_room(BUDGET, now) {
                log.append(Output::Stdout(vec![0; 1000].into()), BUDGET, now);
            }
            // Now the one, now the other is far ahead.
            let (mut turns, index) = if step % 8 == 0 { (1, 1 - step / 500 % 2) } else { (100, step / 500 % 2) };
            while turns > 0 {
                match log.take(cursors[index], now) {
                    Taken::Output(_) => taken[index] += 1,
                    Taken::Nothing => break,
                    other => panic!("{other:?} at step {step}"),
                }
                turns -= 1;
            }
        }
        assert!(taken.iter().all(|taken| *taken > 200), "{taken:?}");
    }

    #[test]
    fn a_single_subscriber_holds_the_process_back() {
        let mut log = Log::default();
        let mut now = Instant::now();
        let only = log.subscribe(now);
        let mut appended = 0;
        while log.has_room(BUDGET * 4, now) {
            now += PATIENCE;
            log.append(Output::Stdout(vec![0; 1000].into()), BUDGET * 4, now);
            appended += 1;
            assert!(appended < 1000, "never full");
        }
        let mut taken = 0;
        while let Taken::Output(_) = log.take(only, now) {
            taken += 1;
        }
        assert_eq!(taken, appended);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(usize),
        Subscribe,
        Unsubscribe(usize),
        Take(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1..400_usize).prop_map(Step::Append),
            1 => Just(Step::Subscribe),
            1 => (0..4_usize).prop_map(Step::Unsubscribe),
            5 => (0..4_usize).prop_map(Step::Take),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Against the simplest thing that could be true: all chunks ever written, in a vector, and for each
        /// subscriber the index of the next one.
        #[test]
        fn every_subscriber_sees_a_contiguous_part_and_the_end(steps in steps()) {
            let mut log = Log::default();
            let mut written: Vec<Bytes> = Vec::new();
            let mut undelivered = 0;
            let mut subscribers: Vec<(CursorId, Option<usize>)> = Vec::new();
            // Whether somebody may have been left behind by somebody faster.
            let mut several = false;
            let mut now = Instant::now();
            for (number, step) in steps.into_iter().enumerate() {
                now += PATIENCE / 10;
                match step {
                    Step::Append(length) => {
                        if log.has_room(BUDGET, now) {
                            let bytes = Bytes::from(vec![number as u8; length]);
                            log.append(Output::Stdout(bytes.clone()), BUDGET, now);
                            written.push(bytes);
                        } else {
                            prop_assert!(log.has_subscribers(), "nobody listens and the process waits");
                        }
                    }
                    // Where it starts is known once it gets something: old undelivered output may be gone.
                    Step::Subscribe if subscribers.len() < 4 => subscribers.push((log.subscribe(now), None)),
                    Step::Subscribe => {}
                    Step::Unsubscribe(index) if index < subscribers.len() => log.unsubscribe(subscribers.remove(index).0),
                    Step::Take(index) if index < subscribers.len() => {
                        let (id, position) = &mut subscribers[index];
                        take(&mut log, *id, position, &written, &mut undelivered, several, now)?;
                    }
                    Step::Unsubscribe(_) | Step::Take(_) => {}
                }
                several = subscribers.len() > 1 || several && !subscribers.is_empty();
                prop_assert!(log.cost() <= BUDGET);
                prop_assert_eq!(log.cost(), log.chunks.iter().map(Chunk::cost).sum::<usize>());
            }
            log.finish(end());
            for (id, position) in &mut subscribers {
                while take(&mut log, *id, position, &written, &mut undelivered, true, now)? {}
                prop_assert_eq!(log.take(*id, now), Taken::End(end()));
                prop_assert!(position.is_none_or(|position| position == written.len()));
            }
        }
    }

    fn take(
        log: &mut Log,
        id: CursorId,
        position: &mut Option<usize>,
        written: &[Bytes],
        undelivered: &mut usize,
        several: bool,
        now: Instant,
    ) -> Result<bool, TestCaseError> {
        match log.take(id, now) {
            Taken::Output(output) => {
                let number =
                    usize::try_from(log.cursors.iter().find(|cursor| cursor.id == id.0).unwrap().next).unwrap() - 1;
                prop_assert_eq!(Some(data(&output)), written.get(number));
                prop_assert!(position.is_none_or(|expected| expected == number), "a gap that nobody told");
                *position = Some(number + 1);
                *undelivered = (*undelivered).max(number + 1);
                Ok(true)
            }
            Taken::Skipped(bytes) => {
                prop_assert!(several, "a single subscriber lost {bytes} bytes");
                let next = usize::try_from(log.first).unwrap();
                if let Some(from) = *position {
                    let lost: usize = written[from..next].iter().map(Bytes::len).sum();
                    prop_assert_eq!(lost as u64, bytes);
                }
                *position = Some(next);
                Ok(true)
            }
            Taken::Nothing | Taken::End(_) => Ok(false),
        }
    }
}
