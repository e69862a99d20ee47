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

use tokio::time::Instant;

use super::{error::ProcessError, output::Memory, running::Process};
use crate::proto::process::{ProcessSelector, process_selector::Selector};

/// How many ended processes are kept.
const ENDED_COUNT: usize = 512;

/// How long an ended process is kept.
const ENDED_AGE: Duration = Duration::from_secs(600);

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
}

struct Ended {
    process: Arc<Process>,
    at: Instant,
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
        state
            .ended
            .retain(|ended| ended.process.pid() != pid && (tag.is_none() || ended.process.tag.as_deref() != tag));
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
            state.ended.push_back(Ended { process: process.clone(), at: now });
        }
        while state.ended.front().is_some_and(|oldest| {
            state.ended.len() > ENDED_COUNT
                || !oldest.is_fresh(now)
                || (state.ended.len() > 1 && self.memory.is_short())
        }) {
            state.ended.pop_front();
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
