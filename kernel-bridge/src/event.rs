//! What an execution reports, in the order of the kernel's iopub channel.

use serde_json::{Map, Value};

/// One step of an execution. The last one of every execution is [`Event::End`], and there is exactly one.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The kernel has taken the cell (`execute_input`).
    Input {
        /// The kernel's counter.
        execution_count: i64,
    },
    /// Text on a standard stream (`stream`), one event per kernel message, never merged or split.
    Stream {
        /// Which stream.
        channel: Channel,
        /// The text; invalid UTF-8 from the kernel has become U+FFFD.
        text: String,
        /// ISO 8601 date of the kernel's header, where it sent one.
        date: Option<String>,
    },
    /// A rich value (`execute_result`, `display_data`).
    Result {
        /// MIME type to data, as the kernel sent it.
        data: Map<String, Value>,
        /// Whether it is the value of the cell's last expression (`execute_result`).
        main: bool,
    },
    /// The code failed (`error`, or a reply with status `error` that no `error` preceded); at most one each
    /// execution.
    Error(ErrorReport),
    /// The execution is over.
    End(Ending),
}

/// A standard stream of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// An exception as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorReport {
    /// `ename`; may be empty.
    pub name: String,
    /// `evalue`.
    pub value: String,
    /// The lines of `traceback`.
    pub traceback: Vec<String>,
}

/// Why an execution is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The kernel said so: idle and reply, or reply and a grace time.
    Finished,
    /// The kernel refused to run the cell (`aborted`), also when asked once more. The code never ran.
    Aborted,
    /// The kernel's process is gone. It is being replaced, and the cell will not run on the new one.
    KernelDied,
    /// The context was restarted on request while the cell ran or waited.
    Restarted,
    /// The context was deleted while the cell ran or waited.
    Deleted,
    /// The kernel could not be started or reached; nothing ran.
    Unavailable,
}
