//! The seam through which kernels are started and watched.

use std::{
    ffi::OsString,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
};

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A kernel to start.
#[derive(Clone, Debug)]
pub struct KernelCommand {
    /// Program and arguments; the program is looked up in the PATH of the new process.
    pub argv: Vec<OsString>,
    /// Variables on top of what the spawner gives every process.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory, entered as the user that the kernel runs as.
    pub cwd: PathBuf,
    /// Where standard output and standard error of the process go (append); created when missing.
    pub log: PathBuf,
}

/// Starts kernels as whoever they are meant to run as, in a session (setsid(2)) of their own.
pub trait Spawner: Send + Sync + 'static {
    /// Starts a kernel.
    ///
    /// # Errors
    /// The cause, in words for the person who asked for the kernel. A program that is missing or cannot be
    /// executed is an error too.
    fn spawn(&self, command: KernelCommand) -> BoxFuture<'_, io::Result<Box<dyn KernelProcess>>>;

    /// Gives a file or directory to the user that kernels run as (chown(2)), so that they can use connection
    /// files and socket directories.
    ///
    /// # Errors
    /// As chown(2).
    fn give(&self, path: &Path) -> io::Result<()>;
}

/// A started kernel. Dropping it does not end the process.
pub trait KernelProcess: Send + Sync + 'static {
    /// Process id, which is also the id of its process group and session.
    fn pid(&self) -> u32;

    /// Completes when the process has been reaped, with a sentence such as `exit status 3` or `signal: killed`.
    /// May be called any number of times, also after the end.
    fn exited(&self) -> BoxFuture<'static, String>;

    /// Sends a signal to the kernel's whole process group. A process that is already gone is a success.
    ///
    /// # Errors
    /// As kill(2), without ESRCH.
    fn signal_group(&self, signal: i32) -> io::Result<()>;
}
