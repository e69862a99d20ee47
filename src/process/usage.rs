//! What an ended process has used.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::procfs::Resident;
use crate::sys::wait::Waited;

/// Times and memory of a process from getrusage(2), each with that of children it has waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) user_us: u64,
    pub(super) system_us: u64,
    /// The most memory it held, in bytes; 0 where that is not known, see [`OwnPeak`].
    pub(super) peak_resident_bytes: u64,
}

impl Usage {
    /// Of a child of ours.
    pub(super) fn of(waited: &Waited) -> Self {
        Self::seen_beside(waited, &OWN_PEAK)
    }

    fn seen_beside(waited: &Waited, own: &OwnPeak) -> Self {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let peak = waited.peak_resident_bytes;
        let peak_resident_bytes = if own.hides(peak) { 0 } else { peak };
        Self { user_us: us(waited.user), system_us: us(waited.system), peak_resident_bytes }
    }
}

/// The most memory that the agent itself has held.
///
/// A child shares the agent's memory until its exec, and the kernel counts that as the child's: no child is ever told
/// to have held less than the agent did at that moment. Only what is clearly more was the child's own, and anything
/// else says nothing about it.
#[derive(Debug, Default)]
struct OwnPeak {
    /// In bytes, as last read; the truth only grows.
    known: AtomicU64,
}

/// There is one agent in a process.
static OWN_PEAK: OwnPeak = OwnPeak { known: AtomicU64::new(0) };

impl OwnPeak {
    /// Whether this much may have been the agent's.
    fn hides(&self, peak: u64) -> bool {
        // Asks the kernel only for a child that is larger than the agent is known to be.
        if peak <= with_margin(self.known.load(Ordering::Relaxed)) {
            return true;
        }
        let Some(own) = Resident::of("self") else { return true };
        self.known.fetch_max(own.peak, Ordering::Relaxed);
        peak <= with_margin(own.peak)
    }
}

/// The kernel adds up memory in batches for each processor, so that two looks at the same peak differ.
fn with_margin(bytes: u64) -> u64 {
    bytes.saturating_add((bytes / 4).max(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clearly_more_than_the_agents_own_is_the_childs() {
        let own = OwnPeak::default();
        let held = Resident::of("self").map_or(0, |own| own.peak);
        assert!(held > 0);
        assert!(own.hides(held / 2) && own.hides(held) && own.hides(held + 1));
        assert!(!own.hides(held * 16));
        let waited = Waited {
            cause: crate::sys::wait::Cause::Exited(0),
            user: Duration::from_millis(3),
            system: Duration::from_micros(7),
            peak_resident_bytes: held * 16,
        };
        let usage = Usage::seen_beside(&waited, &own);
        assert_eq!((usage.user_us, usage.system_us, usage.peak_resident_bytes), (3000, 7, held * 16));
    }
}
