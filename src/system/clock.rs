//! The machine's wall clock, which a restored snapshot finds in the past.

use std::time::Duration;

use rustix::time::{ClockId, Timespec};

/// How far the machine may be behind. The reference was taken before it was sent, so that every delay on the way
/// makes the machine look ahead, never behind.
const BEHIND_TOLERANCE: Duration = Duration::from_millis(50);

/// How far the machine may be ahead, which includes the delay on the way.
const AHEAD_TOLERANCE: Duration = Duration::from_secs(5);

/// Whether a clock that shows `now` has to be set to `reference`; both since the Unix epoch.
pub fn needs_step(now: Duration, reference: Duration) -> bool {
    now.saturating_add(BEHIND_TOLERANCE) < reference || now > reference.saturating_add(AHEAD_TOLERANCE)
}

/// Sets `CLOCK_REALTIME` (clock_settime(2)) to a time since the Unix epoch.
///
/// # Errors
/// `EPERM` without the privilege, `EINVAL` for times that the kernel refuses.
pub fn step(reference: Duration) -> rustix::io::Result<()> {
    let seconds = i64::try_from(reference.as_secs()).map_err(|_| rustix::io::Errno::INVAL)?;
    let time = Timespec { tv_sec: seconds, tv_nsec: reference.subsec_nanos().into() };
    rustix::time::clock_settime(ClockId::Realtime, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_left_alone() {
        let reference = Duration::from_secs(1_700_000_000);
        let behind = |millis| needs_step(reference - Duration::from_millis(millis), reference);
        let ahead = |millis| needs_step(reference + Duration::from_millis(millis), reference);
        assert!(!behind(0) && !behind(49) && !behind(50) && behind(51));
        assert!(!ahead(50) && !ahead(5_000) && ahead(5_001) && ahead(10_000));
    }
}
