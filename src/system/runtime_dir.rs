//! A directory for sockets and other files that live as long as the agent.

use std::{
    env,
    fs::{self, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tracing::debug;

/// How many names are tried before giving up; each is taken only after an agent with the same pid died hard.
const ATTEMPTS: u32 = 100;

/// Others may pass through, but not list.
const MODE: u32 = 0o711;

/// The directory; removed with everything in it when dropped.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// Makes a new directory below `/run`, `$XDG_RUNTIME_DIR` or the directory for temporary files, whichever is
    /// the first that can be written. Others may pass through it, as kernels of other users must, but not list it.
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
        let pid = std::process::id();
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for attempt in 0..ATTEMPTS {
            let name = if attempt == 0 { format!("envd-{pid}") } else { format!("envd-{pid}-{attempt}") };
            let path = parent.join(name);
            // Never an existing one: in a shared directory it may be a trap.
            match fs::DirBuilder::new().mode(MODE).create(&path) {
                Ok(()) => {
                    let dir = Self { path };
                    // mkdir(2) obeys the umask, kernels of other users do not care for it.
                    fs::set_permissions(&dir.path, Permissions::from_mode(MODE))?;
                    return Ok(dir);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
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
}
