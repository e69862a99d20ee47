//! What the kernel knows about a process (proc(5)).

use std::{fs, time::Duration};

/// Clock ticks in a second, as /proc counts them on every architecture that the agent is built for.
const TICKS: u32 = 100;

/// What a process has used so far, without its children.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time, user and system, in steps of 10 ms.
    pub(crate) cpu: Duration,
    /// Page faults that needed no disk.
    pub(crate) faults: u64,
    /// How often a thread gave way to another, of threads that still exist.
    pub(crate) switches: u64,
}

impl Usage {
    /// Of a process that runs, or that nobody has waited for yet.
    pub(crate) fn of(pid: u32) -> Self {
        let ticks = u32::try_from(stat(pid, 14) + stat(pid, 15)).unwrap();
        Self { cpu: Duration::from_secs(1) * ticks / TICKS, faults: stat(pid, 10), switches: switches(pid) }
    }

    /// What was used since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            faults: self.faults - before.faults,
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.faults += other.faults;
        self.switches += other.switches;
    }
}

/// Threads of a process.
pub(crate) fn threads(pid: u32) -> u64 {
    stat(pid, 20)
}

/// The proportional set size in KiB: what is shared counts in parts.
pub(crate) fn pss_kib(pid: u32) -> u64 {
    kib(pid, "smaps_rollup", "Pss:")
}

/// The resident set in KiB, now and at most since [`reset_peak`].
pub(crate) fn resident_kib(pid: u32) -> (u64, u64) {
    (kib(pid, "status", "VmRSS:"), kib(pid, "status", "VmHWM:"))
}

/// Lets the kernel forget the peak of the resident set.
pub(crate) fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// Prints what an agent holds after a bench.
pub(crate) fn print_state(pid: u32) {
    println!("    the agent then: PSS {} KiB, {} threads", pss_kib(pid), threads(pid));
}

/// A field of /proc/PID/stat by its number in the manual page.
fn stat(pid: u32, number: usize) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is the program's name in parentheses, which may hold anything.
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().nth(number - 3).unwrap().parse().unwrap()
}

fn switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end between the two.
    let all = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    all.map(|status| {
        let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        counts.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum::<u64>()
    })
    .sum()
}

fn kib(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}
