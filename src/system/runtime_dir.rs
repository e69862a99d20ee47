//! A directory for sockets and other files that live as long as the agent.

use std::{
    env,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};
use tracing::debug;

/// How many names are tried before giving up.
const ATTEMPTS: u32 = 100;

/// Others may pass through, but not list.
const MODE: u32 = 0o711;

/// The directory; removed with everything in it when dropped.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    /// Tells other agents that the directory is in use; the kernel lets go of it however the agent ends.
    _lock: File,
}

impl RuntimeDir {
    /// Makes a new directory below `/run`, `$XDG_RUNTIME_DIR` or the directory for temporary files, whichever is
    /// the first that can be written. Others may pass through it, as kernels of other users must, but not list it.
    /// What agents that died hard have left there is removed.
    ///
    /// # Errors
    /// Where nothing can be written, those of mkdir(2) for the last attempt.
    pub fn create() -> io::Result<Self> {
        let user_dir = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let parents = [Some(PathBuf::from("/run")), user_dir, Some(env::temp_dir())];
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for parent in parents.iter().flatten() {
            match Self::create_below(parent) {
                Ok(dir) => return Ok(dir),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn create_below(parent: &Path) -> io::Result<Self> {
        remove_leftovers(parent);
        let pid = std::process::id();
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for attempt in 0..ATTEMPTS {
            let name = if attempt == 0 { format!("envd-{pid}") } else { format!("envd-{pid}-{attempt}") };
            let path = parent.join(name);
            // Never an existing one: in a shared directory it may be a trap.
            match fs::DirBuilder::new().mode(MODE).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    last = error;
                    continue;
                }
                Err(error) => return Err(error),
            }
            // Another agent may take it for a leftover before it is locked.
            let Some(lock) = lock(&path) else { continue };
            let dir = Self { path, _lock: lock };
            // mkdir(2) obeys the umask, kernels of other users do not care for it.
            fs::set_permissions(&dir.path, Permissions::from_mode(MODE))?;
            return Ok(dir);
        }
        Err(last)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            debug!(path = %self.path.display(), %error, "cannot remove the runtime directory");
        }
    }
}

/// The lock on a directory that is still there under this name and that no living agent holds.
fn lock(path: &Path) -> Option<File> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    let directory = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
    let (ours, there) = (directory.metadata().ok()?, fs::symlink_metadata(path).ok()?);
    ((ours.dev(), ours.ino()) == (there.dev(), there.ino())).then_some(directory)
}

/// Removes our user's directories of agents that neither run nor hold the lock. One proof of life is not enough: an
/// agent in another pid namespace has no process here, and an older build has no lock.
fn remove_leftovers(parent: &Path) {
    let own = (std::process::id(), rustix::process::geteuid().as_raw());
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(owner) else { continue };
        let path = entry.path();
        let is_ours = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir() && meta.uid() == own.1);
        let is_alive = pid != own.0 && Path::new("/proc").join(pid.to_string()).exists();
        if !is_ours || is_alive {
            continue;
        }
        if let Some(_lock) = lock(&path)
            && let Err(error) = fs::remove_dir_all(&path)
        {
            debug!(path = %path.display(), %error, "cannot remove what an earlier agent has left");
        }
    }
}

/// The pid in `envd-<pid>` or `envd-<pid>-<attempt>`.
fn owner(name: &str) -> Option<u32> {
    let numbers = name.strip_prefix("envd-")?;
    let (pid, attempt) = numbers.split_once('-').unwrap_or((numbers, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(pid) && is_number(attempt) { pid.parse().ok() } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn each_one_is_new_and_gone_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let first = RuntimeDir::create_below(parent.path()).unwrap();
        let second = RuntimeDir::create_below(parent.path()).unwrap();
        assert_ne!(first.path(), second.path());
        fs::write(first.path().join("x"), "").unwrap();
        drop((first, second));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_of_the_dead_are_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let own = format!("envd-{}", std::process::id());
        // No pid is that large (proc_sys_kernel(5), pid_max).
        for name in ["envd-999999999", "envd-999999999-3", own.as_str(), "envd-1", "envd-x", "envd-9-", "other-9"] {
            fs::create_dir_all(parent.path().join(name).join("k")).unwrap();
        }
        std::os::unix::fs::symlink("other-9", parent.path().join("envd-999999998")).unwrap();
        let held = lock(&parent.path().join("envd-999999999-3")).unwrap();
        let dir = RuntimeDir::create_below(parent.path()).unwrap();
        assert_eq!(dir.path(), parent.path().join(&own));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let entries = fs::read_dir(parent.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let mut kept = ["envd-1", "envd-9-", "envd-999999998", "envd-999999999-3", own.as_str(), "envd-x", "other-9"];
        kept.sort_unstable();
        assert_eq!(names, kept);
        drop(held);
    }
}
