//! Control groups of processes (cgroups(7), version 2).
//!
//! Nothing is made unless a request asks. Then the agent makes one directory of its own below the root, and in it a
//! [`ControlGroup`] for each process that asked; both go when the last process in them has ended.
//!
//! A limit needs its controller, and a controller has to be passed down by every group on the way. The agent tries that
//! once for each limit; where it cannot be done the limit is refused rather than forgotten.

mod group;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use thiserror::Error;

use super::path::errno_text;

pub use self::group::ControlGroup;

/// Where the hierarchy is expected.
pub const DEFAULT_ROOT: &str = "/sys/fs/cgroup";

/// `CGROUP2_SUPER_MAGIC` (statfs(2)).
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// What cgroups(7) calls controllers, as far as they limit or watch something of ours.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Limits of one group; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `memory.max` in bytes.
    pub memory_bytes: Option<u64>,
    /// `pids.max`.
    pub pids: Option<u64>,
    /// `cpu.max` in thousandths of one processor.
    pub cpu_millis: Option<u64>,
}

/// Why there is no control group.
#[derive(Debug, Error)]
pub enum ControlGroupError {
    /// `-no-cgroups`.
    #[error("control groups are switched off; start the agent without -no-cgroups")]
    SwitchedOff,
    /// No cgroup2 mount where it was looked for.
    #[error("no control groups of version 2 at or below '{}'; mount cgroup2 there or name it with -cgroup-root", .0.display())]
    NoHierarchy(PathBuf),
    /// A limit whose controller does not come down to our groups.
    #[error("the '{controller}' controller is not available below '{}'", root.display())]
    NoController {
        /// Its name.
        controller: &'static str,
        /// The root of the tree.
        root: PathBuf,
    },
    /// A value that the kernel does not take.
    #[error("{file} does not accept '{value}': {}", errno_text(source))]
    Limit {
        /// Which limit.
        file: &'static str,
        /// What was written.
        value: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The tree is there but cannot be changed.
    #[error("cannot make the control group '{}': {}", path.display(), errno_text(source))]
    Make {
        /// Which one.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl ControlGroupError {
    /// Whether the machine is short of something, so that neither the request nor the set-up is to blame.
    pub fn is_shortage(&self) -> bool {
        matches!(self.source_errno(), Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC))
    }

    /// The system's answer, where it was asked.
    pub fn source_errno(&self) -> Option<i32> {
        match self {
            Self::Limit { source, .. } | Self::Make { source, .. } => source.raw_os_error(),
            Self::SwitchedOff | Self::NoHierarchy(_) | Self::NoController { .. } => None,
        }
    }
}

/// The agent's part of the tree; cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlGroups {
    /// `None`: switched off.
    tree: Option<Arc<Tree>>,
}

#[derive(Debug)]
struct Tree {
    /// As configured; whether it is a cgroup2 mount shows when a request asks.
    configured: PathBuf,
    /// Name of the agent's own directory.
    name: String,
    serials: AtomicU64,
    /// Held while directories come and go, so that the agent's own one does not go below a new group.
    changing: Mutex<()>,
}

impl ControlGroups {
    /// Groups below this directory or, where it is not of version 2 itself, below the first mount of that version
    /// under it, as on machines with both versions. `None` switches them off. Nothing is looked at yet.
    pub fn below(root: Option<PathBuf>) -> Self {
        let tree = |configured| {
            let name = format!("envd-{}", std::process::id());
            Arc::new(Tree { configured, name, serials: AtomicU64::new(1), changing: Mutex::new(()) })
        };
        Self { tree: root.map(tree) }
    }

    /// Makes a group with these limits. Blocking.
    ///
    /// # Errors
    /// [`ControlGroupError`]; no group is left behind then.
    pub fn create(&self, limits: &Limits) -> Result<ControlGroup, ControlGroupError> {
        let tree = self.tree.as_ref().ok_or(ControlGroupError::SwitchedOff)?;
        let root = tree.root()?;
        let own = root.join(&tree.name);
        let changing = tree.lock();
        tree.prepare(&root, &own)?;
        let path = loop {
            let path = own.join(format!("process-{}", tree.serials.fetch_add(1, Ordering::Relaxed)));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                // Of an agent with the same pid that did not live to remove it; somebody may still be in it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => drop(group::remove_tree(&path)),
                Err(source) => {
                    let _ = fs::remove_dir(&own);
                    return Err(ControlGroupError::Make { path, source });
                }
            }
        };
        // From here on the group's drop removes it, which takes the lock.
        drop(changing);
        let group = ControlGroup::at(path, Some(tree.clone()));
        let limited = limit(&root, group.path(), limits);
        limited.map(|()| group)
    }
}

impl Default for ControlGroups {
    fn default() -> Self {
        Self::below(Some(DEFAULT_ROOT.into()))
    }
}

impl Tree {
    fn root(&self) -> Result<PathBuf, ControlGroupError> {
        if is_cgroup2(&self.configured) {
            return Ok(self.configured.clone());
        }
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let mut candidates = cgroup2_mounts(&mounts).into_iter();
        candidates
            .find(|mount| mount.starts_with(&self.configured) && is_cgroup2(mount))
            .ok_or_else(|| ControlGroupError::NoHierarchy(self.configured.clone()))
    }

    /// Makes the agent's own directory and lets the controllers through to what will be in it.
    fn prepare(&self, root: &Path, own: &Path) -> Result<(), ControlGroupError> {
        // Every time: the root's choice may be somebody else's as well.
        pass_controllers_down(root);
        match fs::create_dir(own) {
            Ok(()) => {}
            // Ours from before, or of an agent with the same pid that did not live to clean up.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(ControlGroupError::Make { path: own.to_owned(), source }),
        }
        pass_controllers_down(own);
        Ok(())
    }

    /// Removes a group with what was made below it, and the agent's own directory with the last one.
    ///
    /// # Errors
    /// `EBUSY` while processes are in it.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let _changing = self.lock();
        group::remove_tree(path)?;
        if let Some(own) = path.parent() {
            let _ = fs::remove_dir(own);
        }
        Ok(())
    }

    // Nothing panics while the lock is held, and it protects no data.
    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Best effort and one by one: a controller may be missing or kept by version 1, and only the root of all groups may
/// have processes of its own beside groups with controllers.
fn pass_controllers_down(group: &Path) {
    let passed = read_words(&group.join("cgroup.subtree_control"));
    let there = read_words(&group.join("cgroup.controllers"));
    for controller in CONTROLLERS {
        if there.iter().any(|name| name == controller) && !passed.iter().any(|name| name == controller) {
            let result = write(&group.join("cgroup.subtree_control"), &format!("+{controller}"));
            if let Err(error) = result {
                tracing::debug!(group = %group.display(), controller, %error, "cannot pass a controller down");
            }
        }
    }
}

fn limit(root: &Path, group: &Path, limits: &Limits) -> Result<(), ControlGroupError> {
    let wanted = [
        ("memory", "memory.max", limits.memory_bytes.map(|bytes| bytes.to_string())),
        ("pids", "pids.max", limits.pids.map(|count| count.to_string())),
        ("cpu", "cpu.max", limits.cpu_millis.map(cpu_max)),
    ];
    let there = read_words(&group.join("cgroup.controllers"));
    for (controller, file, value) in wanted {
        let Some(value) = value else { continue };
        if !there.iter().any(|name| name == controller) {
            return Err(ControlGroupError::NoController { controller, root: root.to_owned() });
        }
        write(&group.join(file), &value).map_err(|source| ControlGroupError::Limit { file, value, source })?;
    }
    Ok(())
}

/// Quota and period in microseconds. The kernel takes quotas from 1 ms on and periods up to 1 s.
fn cpu_max(millis: u64) -> String {
    let period = if millis < 10 { 1_000_000 } else { 100_000 };
    format!("{} {period}", millis.saturating_mul(period / 1000))
}

fn is_cgroup2(path: &Path) -> bool {
    // The field's type differs between the C libraries.
    #[allow(clippy::unnecessary_cast, reason = "the field is narrower elsewhere")]
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as i64 == CGROUP2_MAGIC)
}

/// Mount points of version 2 in mountinfo (proc(5)), in its order.
fn cgroup2_mounts(mountinfo: &[u8]) -> Vec<PathBuf> {
    let mount = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let separator = fields.iter().position(|field| *field == b"-")?;
        let kind = fields.get(separator + 1)?;
        (*kind == b"cgroup2").then(|| fields.get(4).map(|point| unescape(point)))?
    };
    mountinfo.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// Undoes the octal escapes for spaces, tabs, newlines and backslashes.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Writes to a file of the kernel's. What is missing is not created, which would fail in a way of its own.
fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::File::options().write(true).open(path)?.write_all(text.as_bytes())
}

fn read_words(path: &Path) -> Vec<String> {
    let mut text = String::new();
    // The files of control groups have no size to go by.
    let read = fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
