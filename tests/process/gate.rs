//! A named pipe that a program waits at until the test lets it pass.

use std::{fs::OpenOptions, io::Write, path::PathBuf};

pub(crate) struct Gate {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
        Self { _dir: dir, path }
    }

    /// For a shell: `read line <PATH`.
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Lets whoever waits pass, and waits for them if they are not there yet.
    pub(crate) fn open(&self) {
        OpenOptions::new().write(true).open(&self.path).unwrap().write_all(b"go\n").unwrap();
    }
}
