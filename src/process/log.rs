//! What a process wrote and who has read how far: the plain data structure behind [`super::output`].
//!
//! # Model
//!
//! The log is a sequence of chunks, one for each read from the process. It never forgets where it is: chunks have
//! consecutive numbers and byte offsets, and each subscriber is a cursor, the number of the chunk it gets next.
//!
//! * A chunk is *received* when its subscriber asks for the next thing. One that leaves before gives it back: a
//!   client may have died before the chunk was on its way.
//! * *Delivered* is everything before the furthest position up to which any subscriber has received. A new plain
//!   subscriber starts there: it gets what nobody has received yet, then everything that follows, and never a byte
//!   again that a client already had.
//! * Delivered chunks stay for a while as *history*, for subscribers that [ask](Log::subscribe_from) for output from
//!   an offset.
//! * What is kept is limited by a budget in bytes, of which each chunk takes [`CHUNK_COST_BYTES`] besides its data.
//!   History counts as well, and is the first to go.
//! * **Nobody subscribed:** a full log lets its oldest chunks go. The process never waits for a listener.
//! * **Somebody subscribed:** a full log has [room](Log::has_room) as long as the slowest cursor that is waited for is
//!   less than a budget behind. Slow subscribers therefore slow the process down through its pipe and lose nothing.
//! * The end comes after the last chunk, for each cursor at its own time.
//!
//! # Who is waited for
//!
//! Everybody with patience left. Patience is used up only where waiting costs somebody something: the log is full, and
//! a subscriber that has received everything asks for more. Then each [tick](Log::tick) takes [`TICK_BYTES`] from every
//! cursor in the way, and taking chunks gives it back byte by byte, up to [`PATIENCE_BYTES`]. So a single subscriber may
//! pause for as long as it likes; of several, each has to move at a modest pace while others wait for it. One that does
//! not is waited for no longer until it has caught up. Mostly it is left behind and [told](Taken::Skipped) how many bytes
//! it missed; the process has then stood still for twenty ticks, once.
//!
//! Why not simply follow the furthest one? Even equal clients on one machine drift apart by more than any budget while
//! gigabytes flow, and one of them would lose its output for the only reason that another one exists. Why not wait for
//! as long as something moves at all? Then a client that takes a little now and then holds up all others. Why ticks
//! rather than the clock? Virtual machines are paused: no client stalls while the agent itself stands still.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    proto::process::process_event::{EndEvent, data_event::Output},
    system::buffers::{CHUNK_BYTES, footprint},
};

/// What a chunk costs besides its data: bookkeeping and the allocation.
pub(super) const CHUNK_COST_BYTES: usize = 128;

/// The largest chunk that is ever appended, in bytes.
pub(super) const CHUNK_LIMIT_BYTES: usize = CHUNK_BYTES;

/// What a subscriber has to take in each tick while others wait for it. With ticks of 50 ms this is 320 KiB a second:
/// nobody calls that fast, and it comes to more than what trickles out of a client that is stuck.
const TICK_BYTES: usize = 16 * 1024;

/// Patience with a subscriber that took what there was: twenty ticks.
const PATIENCE_BYTES: usize = 20 * TICK_BYTES;

/// What a log may hold, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Everything together.
    pub(super) budget: usize,
    /// History: at least as much stays, as far as the budget allows, and at most one chunk more.
    pub(super) history: usize,
}

impl Limits {
    /// Where a process that had no room is let go on.
    pub(super) fn lower(self) -> Self {
        Self { budget: self.budget / 4 * 3, ..self }
    }
}

/// Names a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CursorId(u64);

/// What [`Log::take`] found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Taken {
    /// The next chunk, and the bytes of output before it. The first after [`Log::subscribe_from`] may be the rest of
    /// a chunk.
    Output(Output, u64),
    /// The cursor fell behind and missed this many bytes. It goes on where a new subscriber would begin.
    Skipped(u64),
    /// The process has ended and everything before was taken.
    End(EndEvent),
    /// Nothing new.
    Nothing,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    chunks: VecDeque<Chunk>,
    /// Number of the first chunk in `chunks`.
    first: u64,
    /// Bytes of output so far.
    written: u64,
    /// What all chunks ever have cost.
    total_cost: u64,
    cursors: Vec<Cursor>,
    next_cursor: u64,
    /// Number of the first chunk that nobody has received.
    undelivered: u64,
    /// Boxed: most processes have not ended.
    end: Option<Box<EndEvent>>,
}

#[derive(Clone, Debug)]
struct Chunk {
    output: Output,
    /// Bytes of output before this chunk.
    offset: u64,
    /// What all chunks before this one have cost.
    total_cost: u64,
}

#[derive(Clone, Debug)]
struct Cursor {
    id: u64,
    /// Number of the first chunk that it has not received: `next`, or the one before.
    received: u64,
    /// Number of the next chunk to take.
    next: u64,
    /// Bytes of output before what it takes next.
    offset: u64,
    /// How long it is still waited for. Once 0, it stays so until there is nothing left to take.
    patience: usize,
}

impl Log {
    /// Whether the process may write on. Always true when nobody is subscribed.
    pub(super) fn has_room(&self, limits: Limits) -> bool {
        self.awaited().is_none_or(|awaited| self.fits_from(awaited, limits))
    }

    /// Whether a subscriber has received everything and asks for more.
    pub(super) fn is_waited_on(&self) -> bool {
        let end = self.next_number();
        self.cursors.iter().any(|cursor| cursor.received == end)
    }

    /// The process has waited for room during one tick: whoever is in the way of others loses patience.
    pub(super) fn tick(&mut self, limits: Limits) {
        if self.has_room(limits) || !self.is_waited_on() {
            return;
        }
        for index in 0..self.cursors.len() {
            let fits = self.cursors.get(index).is_none_or(|cursor| self.fits_from(cursor.received, limits));
            if let Some(cursor) = self.cursors.get_mut(index).filter(|_| !fits) {
                cursor.patience = cursor.patience.saturating_sub(TICK_BYTES);
            }
        }
    }

    /// Adds what one read returned; empty reads add nothing.
    pub(super) fn append(&mut self, output: Output, limits: Limits) {
        let length = data(&output).len();
        if length == 0 {
            return;
        }
        let chunk = Chunk { output, offset: self.written, total_cost: self.total_cost };
        self.written += length as u64;
        self.total_cost += chunk.cost();
        self.chunks.push_back(chunk);
        self.shrink(limits);
    }

    /// Lets the oldest chunks go until the rest fits, but none that is needed by a cursor that is waited for.
    pub(super) fn shrink(&mut self, limits: Limits) {
        self.release(limits);
        let keep_from = self.awaited().unwrap_or(u64::MAX);
        while self.cost() > limits.budget && self.first < keep_from && self.chunks.len() > 1 {
            self.drop_first();
        }
    }

    /// No chunk follows any more.
    pub(super) fn finish(&mut self, end: EndEvent) {
        self.end.get_or_insert_with(|| Box::new(end));
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// A cursor at the first byte that nobody has received, and the bytes of output before it.
    pub(super) fn subscribe(&mut self) -> (CursorId, u64) {
        let next = self.undelivered.max(self.first);
        let offset = self.chunk(next).map_or(self.written, |chunk| chunk.offset);
        (self.add_cursor(next, offset), offset)
    }

    /// A cursor at this byte of output, or at the oldest that is kept, and the bytes of output before it.
    ///
    /// # Errors
    /// The bytes of output so far, when there are fewer.
    pub(super) fn subscribe_from(&mut self, offset: u64) -> Result<(CursorId, u64), u64> {
        if offset > self.written {
            return Err(self.written);
        }
        let oldest = self.chunks.front().map_or(self.written, |chunk| chunk.offset);
        let offset = offset.max(oldest);
        let index = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        Ok((self.add_cursor(self.first + index as u64, offset), offset))
    }

    fn add_cursor(&mut self, next: u64, offset: u64) -> CursorId {
        let id = self.next_cursor;
        self.next_cursor += 1;
        self.cursors.push(Cursor { id, received: next, next, offset, patience: PATIENCE_BYTES });
        CursorId(id)
    }

    /// Gives back what the cursor took and did not [receive](Log::receive).
    pub(super) fn unsubscribe(&mut self, CursorId(id): CursorId, limits: Limits) {
        self.cursors.retain(|cursor| cursor.id != id);
        self.release(limits);
    }

    pub(super) fn has_subscribers(&self) -> bool {
        !self.cursors.is_empty()
    }

    /// The client has what the cursor took.
    pub(super) fn receive(&mut self, CursorId(id): CursorId, limits: Limits) {
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.id == id) else { return };
        if cursor.received != cursor.next {
            cursor.received = cursor.next;
            self.undelivered = self.undelivered.max(cursor.next);
            self.release(limits);
        }
    }

    /// The next thing for this cursor, which has [received](Log::receive) what it took before.
    pub(super) fn take(&mut self, CursorId(id): CursorId, limits: Limits) -> Taken {
        self.receive(CursorId(id), limits);
        let (first, resumes) = (self.first, self.first.max(self.undelivered));
        // Where a new subscriber would begin: what lies before is lost to this one unless it asks for a replay.
        let resumes_at = self.chunk(resumes).map_or(self.written, |chunk| chunk.offset);
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.id == id) else { return Taken::Nothing };
        if cursor.next < first {
            let skipped = resumes_at - cursor.offset;
            (cursor.received, cursor.next, cursor.offset) = (resumes, resumes, resumes_at);
            return Taken::Skipped(skipped);
        }
        let index = usize::try_from(cursor.next - first).unwrap_or(usize::MAX);
        let Some(chunk) = self.chunks.get(index) else {
            cursor.patience = PATIENCE_BYTES;
            return self.end.as_deref().cloned().map_or(Taken::Nothing, Taken::End);
        };
        let offset = cursor.offset;
        let output = chunk.from(offset);
        cursor.next += 1;
        cursor.offset = chunk.end();
        if cursor.patience > 0 {
            cursor.patience = cursor.patience.saturating_add(data(&output).len()).min(PATIENCE_BYTES);
        }
        Taken::Output(output, offset)
    }

    /// Bytes of output so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// What is kept, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost_from(self.first)
    }

    /// Lets go what nobody will ask for, but for the history.
    fn release(&mut self, limits: Limits) {
        let slowest = self.cursors.iter().map(|cursor| cursor.received).min().unwrap_or(u64::MAX);
        let needed_from = slowest.min(self.undelivered);
        while self.first < needed_from && self.cost_from(self.first + 1) >= self.cost_from(needed_from) + limits.history
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if self.chunks.pop_front().is_some() {
            self.first += 1;
        }
        // What a burst of small chunks needed is not kept by a process that is quiet afterwards.
        if self.chunks.capacity() > 64 && self.chunks.len() < self.chunks.capacity() / 8 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    /// The position that the process must not run away from.
    fn awaited(&self) -> Option<u64> {
        let patient = self.cursors.iter().filter(|cursor| cursor.patience > 0);
        let slowest = patient.map(|cursor| cursor.received).min();
        slowest.or_else(|| self.cursors.iter().map(|cursor| cursor.received).max())
    }

    /// Whether another chunk fits behind a cursor that has received everything before this one.
    fn fits_from(&self, number: u64, limits: Limits) -> bool {
        let behind = self.cost_from(number);
        behind == 0 || behind.saturating_add(CHUNK_LIMIT_BYTES + CHUNK_COST_BYTES) <= limits.budget
    }

    /// The cost of this chunk and all that follow.
    fn cost_from(&self, number: u64) -> usize {
        let before = self.chunk(number).map_or(self.total_cost, |chunk| chunk.total_cost);
        usize::try_from(self.total_cost - before).unwrap_or(usize::MAX)
    }

    /// The chunk with this number; the oldest one instead of one that is gone.
    fn chunk(&self, number: u64) -> Option<&Chunk> {
        self.chunks.get(usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX))
    }

    #[cfg(test)]
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    fn next_number(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }
}

impl Chunk {
    fn cost(&self) -> u64 {
        (CHUNK_COST_BYTES + footprint(data(&self.output).len())) as u64
    }

    /// Bytes of output up to the end of this chunk.
    fn end(&self) -> u64 {
        self.offset + data(&self.output).len() as u64
    }

    /// What of this chunk follows that many bytes of output.
    fn from(&self, offset: u64) -> Output {
        let mut output = self.output.clone();
        let (Output::Stdout(data) | Output::Stderr(data) | Output::Pty(data)) = &mut output;
        let skip = usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let _before = data.split_to(skip.min(data.len()));
        output
    }
}

/// The bytes of an output event.
pub(super) fn data(output: &Output) -> &Bytes {
    let (Output::Stdout(data) | Output::Stderr(data) | Output::Pty(data)) = output;
    data
}

#[cfg(test)]
mod tests;
