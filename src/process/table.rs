//! Which processes run and which ended a short while ago, by pid and by tag.
//!
//! Tags are not unique: the newest process wins. Pids are unique among processes that are not reaped, but a process
//! may be reaped while its background children still write, so even a live entry can lose its pid to a newer one.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message;
use tokio::time::Instant;

use super::{error::ProcessError, output::Memory, running::Process};
use crate::proto::process::{ProcessSelector, process_selector::Selector};

/// How many ended processes are kept.
const ENDED_COUNT: usize = 512;

/// How long an ended process is kept.
const ENDED_AGE: Duration = Duration::from_secs(600);

/// What the requests of all ended processes may take, in bytes of their wire form: arguments and variables are as long as
/// a client likes.
const ENDED_CONFIG_BYTES: usize = 16 * 1024 * 1024;

/// The table; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Table {
    state: Arc<Mutex<State>>,
    serials: Arc<AtomicU64>,
    memory: Memory,
}

#[derive(Default)]
struct State {
    /// By serial, so that the newest is last.
    live: BTreeMap<u64, Arc<Process>>,
    pids: HashMap<u32, u64>,
    /// Oldest first.
    ended: VecDeque<Ended>,
    /// The sum over `ended`.
    ended_config_bytes: usize,
}

struct Ended {
    process: Arc<Process>,
    at: Instant,
    config_bytes: usize,
}

impl Ended {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.at) <= ENDED_AGE
    }
}

impl Table {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory, ..Self::default() }
    }

    /// The next serial number.
    pub(super) fn serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// Lists a process and forgets ended ones with its pid or tag.
    pub(super) fn insert(&self, process: Arc<Process>) {
        let mut state = self.lock();
        let (pid, tag) = (process.pid(), process.tag.as_deref());
        state.forget(|ended| ended.pid() == pid || tag.is_some() && ended.tag.as_deref() == tag);
        state.pids.insert(pid, process.serial);
        state.live.insert(process.serial, process.clone());
    }

    /// Moves a process from the living to the ended.
    pub(super) fn retire(&self, process: &Arc<Process>) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.live.remove(&process.serial).is_none() {
            return;
        }
        let owns_pid = state.pids.get(&process.pid()) == Some(&process.serial);
        if owns_pid {
            state.pids.remove(&process.pid());
            let config_bytes = process.config.encoded_len();
            state.ended_config_bytes += config_bytes;
            state.ended.push_back(Ended { process: process.clone(), at: now, config_bytes });
        }
        while state.ended.front().is_some_and(|oldest| {
            state.ended.len() > ENDED_COUNT
                || state.ended_config_bytes > ENDED_CONFIG_BYTES
                || !oldest.is_fresh(now)
                || (state.ended.len() > 1 && self.memory.is_short())
        }) {
            state.forget_oldest();
        }
    }

    /// Every live process, in the order of their starts.
    pub(super) fn live(&self) -> Vec<Arc<Process>> {
        self.lock().live.values().filter(|process| !process.is_gone()).cloned().collect()
    }

    /// Every process that is remembered: first those that ended, the oldest end first, then the live ones.
    pub(super) fn all(&self) -> Vec<Arc<Process>> {
        let now = Instant::now();
        let state = self.lock();
        let ended = state.ended.iter().filter(|ended| ended.is_fresh(now)).map(|ended| &ended.process);
        ended.chain(state.live.values()).cloned().collect()
    }

    /// The live process that a request selects.
    ///
    /// # Errors
    /// When the request selects nothing, or nothing that lives.
    pub(super) fn find_live(&self, selector: Option<ProcessSelector>) -> Result<Arc<Process>, ProcessError> {
        let selector = selector.and_then(|selector| selector.selector).ok_or(ProcessError::NoSelector)?;
        self.lock().live_by(&selector, |process| !process.is_gone()).ok_or_else(|| unknown(selector))
    }

    /// The live process that a request selects, else one that ended a short while ago. One whose last output is still on
    /// the way into its log counts as either.
    ///
    /// # Errors
    /// As [`Table::find_live`].
    pub(super) fn find(&self, selector: Option<ProcessSelector>) -> Result<Arc<Process>, ProcessError> {
        let selector = selector.and_then(|selector| selector.selector).ok_or(ProcessError::NoSelector)?;
        let state = self.lock();
        state.live_by(&selector, |_| true).or_else(|| state.ended_by(&selector)).ok_or_else(|| unknown(selector))
    }

    // Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn live_by(&self, selector: &Selector, wanted: impl Fn(&Process) -> bool) -> Option<Arc<Process>> {
        let found = match selector {
            Selector::Pid(pid) => self.live.get(self.pids.get(pid)?).filter(|process| wanted(process)),
            Selector::Tag(tag) => {
                let tagged = |process: &&Arc<Process>| process.tag.as_ref() == Some(tag) && wanted(process);
                self.live.values().rev().find(tagged)
            }
        };
        found.cloned()
    }

    fn forget(&mut self, unwanted: impl Fn(&Process) -> bool) {
        self.ended.retain(|ended| !unwanted(&ended.process));
        self.ended_config_bytes = self.ended.iter().map(|ended| ended.config_bytes).sum();
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.ended.pop_front() {
            self.ended_config_bytes -= oldest.config_bytes;
        }
    }

    fn ended_by(&self, selector: &Selector) -> Option<Arc<Process>> {
        let now = Instant::now();
        let selected = |process: &Process| match selector {
            Selector::Pid(pid) => process.pid() == *pid,
            Selector::Tag(tag) => process.tag.as_ref() == Some(tag),
        };
        let fresh = self.ended.iter().rev().take_while(|ended| ended.is_fresh(now));
        fresh.map(|ended| &ended.process).find(|process| selected(process)).cloned()
    }
}

fn unknown(selector: Selector) -> ProcessError {
    match selector {
        Selector::Pid(pid) => ProcessError::UnknownPid(pid),
        Selector::Tag(tag) => ProcessError::UnknownTag(tag),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use std::{os::fd::OwnedFd, process::Command};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::{
        super::{
            input::Input,
            output::OutputLog,
            reap::{Child, Extras},
            running::Parts,
        },
        *,
    };
    use crate::proto::process::ProcessConfig;

    const PID: u32 = 4242;

    /// The table only looks at the number, so that any descriptor will do.
    fn process(table: &Table, pid: u32, tag: Option<&str>, cmd: &str) -> Arc<Process> {
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
        listed(table, Child::new(pid, own, Extras::default()), tag, cmd)
    }

    fn listed(table: &Table, child: Child, tag: Option<&str>, cmd: &str) -> Arc<Process> {
        let process = Arc::new(Process::new(Parts {
            serial: table.serial(),
            config: ProcessConfig { cmd: cmd.to_owned(), ..ProcessConfig::default() },
            tag: tag.map(str::to_owned),
            log: OutputLog::new(Memory::default()),
            child: Arc::new(child),
            input: Input::new(None, Default::default()),
            terminal: None,
        }));
        table.insert(process.clone());
        process
    }

    fn found(result: Result<Arc<Process>, ProcessError>) -> Option<u64> {
        result.ok().map(|process| process.serial)
    }

    fn by_pid(pid: u32) -> Option<ProcessSelector> {
        Some(ProcessSelector { selector: Some(Selector::Pid(pid)) })
    }

    fn by_tag(tag: &str) -> Option<ProcessSelector> {
        Some(ProcessSelector { selector: Some(Selector::Tag(tag.to_owned())) })
    }

    #[test]
    fn a_reused_pid_never_finds_the_older_end() {
        let table = Table::default();
        let first = process(&table, PID, Some("a"), "");
        table.retire(&first);
        assert_eq!(found(table.find(by_pid(PID))), Some(first.serial));
        let second = process(&table, PID, Some("b"), "");
        assert_eq!(found(table.find(by_pid(PID))), Some(second.serial));
        assert_eq!(found(table.find(by_tag("a"))), None, "forgotten by its number");
        table.retire(&second);
        assert_eq!(found(table.find(by_pid(PID))), Some(second.serial));
        assert_eq!(found(table.find_live(by_pid(PID))), None);
    }

    #[test]
    fn the_late_end_of_a_predecessor_neither_evicts_its_successor_nor_is_kept_under_its_pid() {
        let table = Table::default();
        // Reaped long ago, its output held open meanwhile.
        let late = process(&table, PID, Some("late"), "");
        let successor = process(&table, PID, None, "");
        assert_eq!(found(table.find_live(by_tag("late"))), Some(late.serial));
        table.retire(&late);
        assert_eq!(found(table.find_live(by_pid(PID))), Some(successor.serial));
        table.retire(&successor);
        assert_eq!(found(table.find(by_pid(PID))), Some(successor.serial));
        assert_eq!(table.all().len(), 1);

        // The other way round: the successor ends first.
        let late = process(&table, PID, None, "");
        let successor = process(&table, PID, None, "");
        table.retire(&successor);
        table.retire(&late);
        assert_eq!(found(table.find(by_pid(PID))), Some(successor.serial));
    }

    #[test]
    fn what_is_kept_of_ended_processes_is_bounded_by_count_and_by_size() {
        let table = Table::default();
        for pid in 1..=600 {
            table.retire(&process(&table, pid, None, "/bin/true"));
        }
        assert_eq!(table.all().len(), ENDED_COUNT);
        assert_eq!(found(table.find(by_pid(600))), Some(599));
        assert_eq!(found(table.find(by_pid(1))), None);
        let large = "x".repeat(ENDED_CONFIG_BYTES / 4);
        for pid in 1..=8 {
            table.retire(&process(&table, pid, Some("large"), &large));
            table.retire(&process(&table, 100 + pid, None, &large));
        }
        let state = table.lock();
        let bytes: usize = state.ended.iter().map(|ended| ended.process.config.encoded_len()).sum();
        assert_eq!(bytes, state.ended_config_bytes);
        assert!(bytes <= ENDED_CONFIG_BYTES && state.ended.len() == 3, "{bytes} in {}", state.ended.len());
    }

    #[tokio::test]
    #[allow(clippy::zombie_processes, reason = "the reaper waits for them")]
    async fn children_with_the_same_number_get_their_own_statuses() {
        let reaper = super::super::reap::Reaper::default();
        let start = |code: &str| -> OwnedFd {
            let script = format!("read line; exit {code}");
            let mut child =
                Command::new("/bin/sh").args(["-c", &script]).stdin(std::process::Stdio::piped()).spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            drop(child.stdin.take());
            pidfd
        };
        for _ in 0..20 {
            let older = reaper.adopt(PID, start("1"), Extras::default());
            let newer = reaper.adopt(PID, start("2"), Extras::default());
            let (newer, older) = (newer.ended().await, older.ended().await);
            assert_eq!(
                (older.status.to_string(), newer.status.to_string()),
                ("exit status 1".into(), "exit status 2".into())
            );
        }
    }
}
