//! What proc(5) tells about processes.

use std::{fs, io};

/// Clock ticks in a second, as times in `/proc/[pid]/stat` are counted: 100 on every architecture that we build for.
const TICKS_PER_SECOND: u64 = 100;

/// What we use of `/proc/[pid]/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    /// One letter: `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`.
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    /// Processor time in microseconds, with that of children it has waited for.
    pub(super) user_us: u64,
    pub(super) system_us: u64,
    /// When it was started, in ticks since boot. A number that two processes have had is told apart by it.
    pub(super) started: Ticks,
}

/// Clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticks(u64);

impl Ticks {
    #[cfg(test)]
    pub(super) fn from_boot(ticks: u64) -> Self {
        Self(ticks)
    }

    /// Now.
    pub(super) fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
        Self(seconds * TICKS_PER_SECOND + nanos / (1_000_000_000 / TICKS_PER_SECOND))
    }
}

impl Stat {
    /// Of one process; `None` when there is none with this number.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Of every process that can be seen. One that ends meanwhile may be missing.
    ///
    /// # Errors
    /// When there is no procfs, or that of another process namespace, whose numbers mean others.
    pub(super) fn all() -> io::Result<Vec<Self>> {
        let own = fs::read_link("/proc/self").map_err(|error| io::Error::new(error.kind(), "/proc is not mounted"))?;
        if own.to_str().and_then(|own| own.parse().ok()) != Some(std::process::id()) {
            return Err(io::Error::other("/proc shows another process namespace"));
        }
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            all.extend(name.to_str().and_then(|name| name.parse().ok()).and_then(Self::of));
        }
        Ok(all)
    }

    /// Tells processes apart that have had the same number.
    pub(super) fn identity(&self) -> (u32, Ticks) {
        (self.pid, self.started)
    }

    fn parse(pid: u32, text: &[u8]) -> Option<Self> {
        // The name in parentheses may contain anything, also parentheses and spaces.
        let name_ends = text.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> = str::from_utf8(text.get(name_ends + 1..)?).ok()?.split_ascii_whitespace().collect();
        // Counted as in proc(5), where the state is field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at| field(at)?.parse::<u64>().ok();
        // Of another namespace: 0, of none: -1.
        let id = |at| field(at)?.parse::<i64>().ok().map(|id| u32::try_from(id).unwrap_or(0));
        let us = |ticks: u64| ticks.saturating_mul(1_000_000 / TICKS_PER_SECOND);
        Some(Self {
            pid,
            state: field(3)?.chars().next()?,
            parent: id(4)?,
            group: id(5)?,
            session: id(6)?,
            user_us: us(number(14)?.saturating_add(number(16)?)),
            system_us: us(number(15)?.saturating_add(number(17)?)),
            started: Ticks(number(22)?),
        })
    }
}

/// Resident memory of a process in bytes, from `/proc/[pid]/status`; a process that has ended holds none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resident {
    /// `VmRSS`.
    pub(super) now: u64,
    /// `VmHWM`: the most since its last exec.
    pub(super) peak: u64,
}

impl Resident {
    /// Of one process, by its number or `self`; nothing where it cannot be read.
    pub(super) fn of(pid: impl std::fmt::Display) -> Option<Self> {
        Some(Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
    }

    fn parse(text: &str) -> Self {
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        Self { now: bytes("VmRSS:").unwrap_or(0), peak: bytes("VmHWM:").unwrap_or(0) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_no_obstacle() {
        let line = b"42 (a) S 1 (b) R 7 8 9 0 -1 4194304 1 2 3 4 5 6 70 80 20 0 1 0 12345 1 1\n";
        let stat = Stat::parse(42, line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.group, stat.session), ('R', 7, 8, 9));
        assert_eq!((stat.user_us, stat.system_us), (750_000, 860_000));
        assert_eq!(stat.started, Ticks(12345));
        assert_eq!(Stat::parse(42, b"42 (cut off) S 1"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        let stat = Stat::of(own).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(stat.started <= Ticks::now());
        assert!(Stat::all().unwrap().iter().any(|other| other.pid == own && other.started == stat.started));
        let resident = Resident::of("self").unwrap();
        assert!(resident.now > 0 && resident.peak >= resident.now, "{resident:?}");
    }
}
