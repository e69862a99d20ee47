//! Byte buffers that are filled in place, and pools in which large ones wait to be filled again.
//!
//! A C library may give every allocation of many kilobytes back to the kernel as soon as it is freed, musl's does. The
//! next one then costs a system call and a page fault for each page, which is more than filling it does. Whoever fills
//! such buffers at a high rate takes them from a [`Pool`].

use std::{
    fmt, io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

/// What a buffer of a pool holds is copied out of it up to this size, in bytes: nobody keeps a large buffer for a short
/// line, and allocations of this size are cheap.
const COPY_LIMIT_BYTES: usize = 24 * 1024;

/// What a pool keeps without losing any when all its buffers have come back. Of those above, which a burst has needed,
/// one is freed at each such time.
const KEEP_WHEN_QUIET: usize = 4;

/// What a buffer of [`CHUNKS`] holds, in bytes: as much as a pipe (pipe(7)).
pub const CHUNK_BYTES: usize = 64 * 1024;

/// The memory that a piece of this length takes when it comes from a buffer of [`CHUNKS`], in bytes.
pub fn footprint(length: usize) -> usize {
    if length <= COPY_LIMIT_BYTES { length } else { length.max(CHUNK_BYTES) }
}

/// For what processes write and read.
pub static CHUNKS: Pool = Pool::new(CHUNK_BYTES, 32);

/// Growing bytes, all of them initialised.
#[derive(Default)]
pub struct Buffer {
    /// What is filled, and behind it what may be filled.
    bytes: Vec<u8>,
    filled: usize,
    home: Option<&'static Pool>,
}

impl Buffer {
    /// An empty buffer of no pool, which allocates as it grows.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Adds `count` bytes of any content, to be overwritten.
    pub fn extend(&mut self, count: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled = start.saturating_add(count);
        if self.bytes.len() < self.filled {
            self.bytes.resize(self.filled, 0);
        }
        self.bytes.get_mut(start..self.filled).unwrap_or_default()
    }

    /// Appends these bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.extend(bytes.len()).copy_from_slice(bytes);
    }

    /// Forgets what follows the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.filled = self.filled.min(length);
    }

    /// What it holds.
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// The same, to be changed.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.filled).unwrap_or_default()
    }

    /// What it holds, to be shared. A buffer of a pool returns there when the last share is dropped.
    pub fn freeze(mut self) -> Bytes {
        if self.home.is_none() {
            self.bytes.truncate(self.filled);
            return Bytes::from(std::mem::take(&mut self.bytes));
        }
        if self.filled <= COPY_LIMIT_BYTES { Bytes::copy_from_slice(self.filled()) } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home {
            home.put_back(std::mem::take(&mut self.bytes));
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.filled).finish_non_exhaustive()
    }
}

/// Buffers of one size. They only wait to be used again while somebody holds a [`Lease`].
#[derive(Debug)]
pub struct Pool {
    size: usize,
    keep: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    leases: usize,
    /// Buffers that somebody has.
    out: usize,
    waiting: Vec<Vec<u8>>,
}

impl Pool {
    /// A pool of buffers of `size` bytes, of which at most `keep` wait.
    pub const fn new(size: usize, keep: usize) -> Self {
        Self { size, keep, state: Mutex::new(State { leases: 0, out: 0, waiting: Vec::new() }) }
    }

    /// An empty buffer, the one that was used last where there is a choice.
    pub fn take(&'static self) -> Buffer {
        let waiting = {
            let mut state = self.state();
            state.out += 1;
            state.waiting.pop()
        };
        let bytes = waiting.unwrap_or_else(|| vec![0; self.size]);
        Buffer { bytes, filled: 0, home: Some(self) }
    }

    /// Lets buffers wait, for as long as there may be something to fill.
    pub fn lease(&'static self) -> Lease {
        self.state().leases += 1;
        Lease { pool: self }
    }

    fn put_back(&self, bytes: Vec<u8>) {
        let mut state = self.state();
        state.out = state.out.saturating_sub(1);
        let surplus = if state.leases == 0 || bytes.len() != self.size || state.waiting.len() >= self.keep {
            // One that has grown is not kept at its new size.
            Some(bytes)
        } else {
            state.waiting.push(bytes);
            (state.out == 0 && state.waiting.len() > KEEP_WHEN_QUIET).then(|| state.waiting.swap_remove(0))
        };
        // Not freed under the lock.
        drop(state);
        drop(surplus);
    }

    // Nothing panics while the lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who will fill buffers of a pool. With the last one the pool becomes empty.
#[derive(Debug)]
pub struct Lease {
    pool: &'static Pool,
}

impl Lease {
    /// [`Pool::take`].
    pub fn take(&self) -> Buffer {
        self.pool.take()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.leases -= 1;
        let surplus = if state.leases == 0 { std::mem::take(&mut state.waiting) } else { Vec::new() };
        drop(state);
        drop(surplus);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SIZE: usize = 64 * 1024;

    fn pool(keep: usize) -> &'static Pool {
        Box::leak(Box::new(Pool::new(SIZE, keep)))
    }

    #[test]
    fn a_large_buffer_returns_when_its_last_share_is_gone() {
        let pool = pool(2);
        let lease = pool.lease();
        let mut buffer = lease.take();
        buffer.extend(SIZE).fill(7);
        let first = buffer.filled().as_ptr();
        let whole = buffer.freeze();
        let shares = (whole.slice(1..), whole);
        assert!(pool.state().waiting.is_empty());
        drop(shares);
        let again = lease.take();
        assert_eq!((again.len(), again.bytes.as_ptr()), (0, first));
    }

    #[test]
    fn what_is_small_does_not_hold_a_large_buffer() {
        let pool = pool(2);
        let lease = pool.lease();
        let mut buffer = lease.take();
        buffer.put(b"a line");
        let line = buffer.freeze();
        assert_eq!((&line[..], pool.state().waiting.len()), (&b"a line"[..], 1));
    }

    #[test]
    fn a_pool_keeps_so_many_and_without_leases_none() {
        let pool = pool(2);
        let (lease, other) = (pool.lease(), pool.lease());
        drop([lease.take(), lease.take(), lease.take()]);
        assert_eq!(pool.state().waiting.len(), 2);
        drop(other);
        assert_eq!(pool.state().waiting.len(), 2);
        let late = lease.take();
        drop(lease);
        assert!(pool.state().waiting.is_empty());
        drop(late);
        assert!(pool.state().waiting.is_empty());
    }

    #[test]
    fn what_a_burst_has_needed_is_given_back_bit_by_bit() {
        let pool = pool(8);
        let lease = pool.lease();
        let burst: Vec<_> = (0..10).map(|_| lease.take()).collect();
        drop(burst);
        let mut kept = vec![pool.state().waiting.len()];
        for _ in 0..6 {
            drop(lease.take());
            kept.push(pool.state().waiting.len());
        }
        assert_eq!(kept, [8, 7, 6, 5, 4, 4, 4]);
    }

    #[test]
    fn a_buffer_that_has_grown_is_not_kept() {
        let pool = pool(2);
        let lease = pool.lease();
        let mut buffer = lease.take();
        buffer.extend(SIZE + 1);
        drop(buffer);
        assert!(pool.state().waiting.is_empty());
    }

    #[test]
    fn a_buffer_grows_and_shrinks_with_what_is_put_into_it() {
        for mut buffer in [Buffer::new(), pool(1).lease().take()] {
            buffer.write_all(b"one, ").unwrap();
            buffer.put(b"two, three");
            buffer.truncate(8);
            buffer.filled_mut()[0] = b'O';
            buffer.extend(1).fill(b'!');
            assert_eq!(buffer.freeze(), "One, two!");
        }
    }
}
