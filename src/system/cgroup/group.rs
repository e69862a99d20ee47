//! One control group: who is in it, signals to all of it, what the kernel did to it, and its removal.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;

use super::{Tree, write};
use crate::sys;

/// How often a group is looked through for members that came up meanwhile. A group that freezes needs two or three
/// times; only an old kernel with a fork bomb gets near it.
const PASSES: usize = 1000;

/// A control group of one process and everything it starts. Dropped, it is removed if nobody is in it;
/// [`release`](Self::release) also waits for those who are.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
    /// `None` only in tests, for a directory that merely looks like a group.
    tree: Option<Arc<Tree>>,
    released: AtomicBool,
}

impl ControlGroup {
    pub(super) fn at(path: PathBuf, tree: Option<Arc<Tree>>) -> Self {
        Self { path, tree, released: AtomicBool::new(false) }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, for `CLONE_INTO_CGROUP` (clone(2)), close-on-exec.
    ///
    /// # Errors
    /// As open(2).
    pub fn directory(&self) -> io::Result<OwnedFd> {
        File::open(&self.path).map(OwnedFd::from)
    }

    /// `cgroup.procs`, for writing, close-on-exec: a process that writes `0` moves itself in.
    ///
    /// # Errors
    /// As open(2).
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        File::options().write(true).open(self.path.join("cgroup.procs")).map(OwnedFd::from)
    }

    /// Process ids of everybody in it and in groups below it, without zombies.
    ///
    /// # Errors
    /// As read(2); a group that is gone is empty.
    pub fn members(&self) -> io::Result<Vec<u32>> {
        let mut members = Vec::new();
        collect(&self.path, &mut members)?;
        Ok(members)
    }

    /// Sends SIGKILL to all members at once (`cgroup.kill`, Linux 5.14), or one by one.
    ///
    /// # Errors
    /// As write(2) and pidfd_send_signal(2).
    pub fn kill(&self) -> io::Result<()> {
        match write(&self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.signal(libc::SIGKILL),
            other => other,
        }
    }

    /// Sends a signal once to every member. The group is frozen meanwhile (`cgroup.freeze`, Linux 5.2), so that nobody
    /// gets away by forking. A reused pid is never hit: each pidfd was opened before its pid was last seen in the group.
    ///
    /// # Errors
    /// As pidfd_send_signal(2), the first one; the others get theirs nevertheless.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let freezer = self.path.join("cgroup.freeze");
        let thawed = fs::read(&freezer).is_ok_and(|state| state.starts_with(b"0"));
        let frozen = thawed && write(&freezer, "1").is_ok();
        let outcome = self.signal_each(signal);
        if frozen {
            write(&freezer, "0")?;
        }
        outcome
    }

    fn signal_each(&self, signal: i32) -> io::Result<()> {
        let mut done = HashSet::new();
        let mut outcome = Ok(());
        for _ in 0..PASSES {
            let mut found = Vec::new();
            for pid in self.members()?.into_iter().filter(|pid| !done.contains(pid)) {
                match open(pid) {
                    Ok(pidfd) => found.push((pid, pidfd)),
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(error),
                }
            }
            if found.is_empty() {
                break;
            }
            let still: HashSet<u32> = self.members()?.into_iter().collect();
            for (pid, pidfd) in found.into_iter().filter(|(pid, _)| still.contains(pid)) {
                done.insert(pid);
                match sys::signal::send(pidfd.as_fd(), signal) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) && outcome.is_ok() => outcome = Err(error),
                    _ => {}
                }
            }
        }
        outcome
    }

    /// How many processes of the group the kernel has killed because memory was short (`memory.events`); 0 where the
    /// memory controller is missing.
    pub fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        value_of(&events, "oom_kill").unwrap_or(0)
    }

    /// Removes the group, now if nobody is in it, else when the last one has left. Needs a tokio runtime for the
    /// waiting. Signals and counts find nothing from then on.
    pub fn release(self: &Arc<Self>) {
        if self.released.swap(true, Ordering::AcqRel) || self.remove() {
            return;
        }
        let group = self.clone();
        tokio::spawn(async move {
            if let Err(error) = group.emptied().await {
                tracing::warn!(group = %group.path.display(), %error, "cannot see when the control group is empty");
            }
            if !group.remove() {
                tracing::warn!(group = %group.path.display(), "the control group is left behind");
            }
        });
    }

    /// Completes when nobody is left: `populated` in `cgroup.events`, whose changes poll(2) as `POLLPRI`.
    async fn emptied(&self) -> io::Result<()> {
        let file = match File::open(self.path.join("cgroup.events")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let mut file = sys::descriptor::watch_file(file, Interest::PRIORITY)?;
        loop {
            let mut events = String::new();
            file.get_mut().seek(SeekFrom::Start(0))?;
            // Reading is what makes the next change a new one.
            match file.get_mut().read_to_string(&mut events) {
                // The group is gone.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
                read => read?,
            };
            if value_of(&events, "populated") == Some(0) {
                return Ok(());
            }
            file.ready(Interest::PRIORITY).await?.clear_ready();
        }
    }

    /// Whether the group is gone.
    fn remove(&self) -> bool {
        let removed = match &self.tree {
            Some(tree) => tree.remove(&self.path),
            None => remove_tree(&self.path),
        };
        removed.is_ok()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if !*self.released.get_mut() {
            self.remove();
        }
    }
}

/// Removes a group and, from the bottom up, the groups that were made below it.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // A group with groups in it says EBUSY, as one with processes does.
        Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
        Err(_busy) => {}
        Ok(()) => return Ok(()),
    }
    for child in children(path) {
        remove_tree(&child)?;
    }
    fs::remove_dir(path)
}

fn collect(path: &Path, members: &mut Vec<u32>) -> io::Result<()> {
    let listed = match fs::read_to_string(path.join("cgroup.procs")) {
        // ENODEV: removed while it was open. EOPNOTSUPP: a group of threads; its processes are listed further up.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        other => other?,
    };
    // 0 is a process of a pid namespace that we do not see.
    members.extend(listed.lines().filter_map(|line| line.parse().ok()).filter(|pid: &u32| *pid != 0));
    children(path).into_iter().try_for_each(|child| collect(&child, members))
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// The number behind a name in a flat keyed file.
fn value_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}
