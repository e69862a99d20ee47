//! Why a request to the process service fails.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::{resources::LimitError, spawn::SpawnError};
use crate::system::{
    caller::CallerError,
    cgroup::ControlGroupError,
    path::{PathError, errno_text},
};

/// Every failure of the process service; the messages are what clients see.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// Nobody to start the process as.
    #[error(transparent)]
    Caller(#[from] CallerError),
    /// The working directory cannot be resolved.
    #[error(transparent)]
    WorkingDirectory(#[from] PathError),
    /// The working directory does not exist.
    #[error("cwd '{}' does not exist", .0.display())]
    NoWorkingDirectory(PathBuf),
    /// A resource limit makes no sense.
    #[error(transparent)]
    ResourceLimit(#[from] LimitError),
    /// The process cannot have a control group, or not with these limits.
    #[error("control_group: {0}")]
    ControlGroup(#[from] ControlGroupError),
    /// A command did not start.
    #[error("error starting process '{command}': {source}")]
    Start {
        /// Program and arguments.
        command: String,
        /// Why.
        source: SpawnError,
    },
    /// A terminal did not start.
    #[error(
        "error starting pty with command '{command}' in dir '{}' with '{cols}' cols and '{rows}' rows: {source}",
        dir.display()
    )]
    StartTerminal {
        /// Program and arguments.
        command: String,
        /// Working directory.
        dir: PathBuf,
        /// Columns asked for.
        cols: u16,
        /// Rows asked for.
        rows: u16,
        /// Why.
        source: SpawnError,
    },
    /// The call's time limit has passed.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The call's time limit has passed before all its input was written.
    #[error("context deadline exceeded: {written} bytes of the input were written")]
    InputDeadline {
        /// How much the process can read of it.
        written: usize,
    },
    /// Too many calls wait to write already.
    #[error(
        "input was not written: {waiting} bytes wait for process '{pid}' already; send it when they have been read"
    )]
    InputQueue {
        /// Which process.
        pid: u32,
        /// How much waits, in bytes.
        waiting: usize,
    },
    /// No such pid.
    #[error("process with pid {0} not found")]
    UnknownPid(u32),
    /// No such tag.
    #[error("process with tag {0} not found")]
    UnknownTag(String),
    /// The request selects no process.
    #[error("invalid input type *process.ProcessSelector")]
    NoSelector,
    /// The request has no input.
    #[error("invalid input type <nil>")]
    NoInput,
    /// A message of an input stream is empty.
    #[error("invalid event type <nil>")]
    NoEvent,
    /// An input stream starts with data.
    #[error("input before a start event: no process is selected")]
    InputBeforeStart,
    /// Terminal input for a process without a terminal.
    #[error("error writing to tty: tty not assigned to process — input should be written to the stdin, not the tty")]
    NoTerminal,
    /// Standard input for a process with a terminal.
    #[error("error writing to stdin: tty assigned to process — input should be written to the pty, not the stdin")]
    IsTerminal,
    /// Standard input was not asked for or is closed.
    #[error("error writing to stdin: stdin not enabled or closed")]
    StdinClosed,
    /// The reader of standard input is gone.
    #[error("error writing to stdin: error writing to stdin of process '{pid}': {}", errno_text(source))]
    WriteStdin {
        /// Which process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The terminal is gone.
    #[error("error writing to tty: error writing to tty of process '{pid}': {}", errno_text(source))]
    WriteTerminal {
        /// Which process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// A terminal has no end of file of its own.
    #[error("error closing stdin: cannot close stdin for PTY process — send Ctrl+D (0x04) instead")]
    CloseTerminal,
    /// A process without a terminal has no size.
    #[error("error resizing tty: tty not assigned to process")]
    ResizeWithoutTerminal,
    /// The terminal refuses the size.
    #[error("error resizing tty: {}", errno_text(.0))]
    Resize(#[source] io::Error),
    /// A number that is no signal.
    #[error("invalid signal: {0}")]
    InvalidSignal(String),
    /// A number that is no scope of signals.
    #[error("invalid signal scope: {0}")]
    InvalidScope(i32),
    /// The first signal of a time limit is none.
    #[error("invalid time limit: {0} is no signal from 1 to 64")]
    InvalidLimitSignal(u32),
    /// The signal cannot be sent.
    #[error("error sending signal: {}", errno_text(.0))]
    Signal(#[source] io::Error),
    /// The client reads too slowly, and others read the same process faster.
    #[error("{bytes} bytes of the output of process {pid} were skipped: this stream fell behind the others")]
    Skipped {
        /// Which process.
        pid: u32,
        /// How much is lost to this stream.
        bytes: u64,
    },
    /// A client asks for output from an offset that the process has not reached.
    #[error("cannot replay the output of process {pid} from byte {offset}: {written} bytes were written so far")]
    ReplayBeyond {
        /// Which process.
        pid: u32,
        /// Where the client wants to start.
        offset: u64,
        /// How much there is.
        written: u64,
    },
    /// The agent is going down; the process runs on.
    #[error("the agent is shutting down")]
    ShuttingDown,
    /// The agent's own machinery failed.
    #[error("cannot start a process: {0}")]
    Internal(String),
}
