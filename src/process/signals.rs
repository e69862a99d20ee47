//! Which signals a client may send, and whom they reach.

use std::{io, sync::Arc};

use super::{error::ProcessError, reap::Child, tree};
use crate::proto::process::{SendSignalRequest, Signal, SignalScope};

/// The numbers of signal(7), realtime ones included.
const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;

/// Whom a signal reaches; the later the wider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// The process alone.
    #[default]
    Process,
    /// The process group that it leads. A terminal's foreground job may have another one.
    Group,
    /// Its control group if it has its own, else the group and all descendants, see [`tree`].
    Tree,
}

impl Scope {
    /// From a field of a request.
    ///
    /// # Errors
    /// For numbers that mean nothing.
    pub(super) fn of(number: i32) -> Result<Self, ProcessError> {
        match SignalScope::try_from(number) {
            Ok(SignalScope::Process) => Ok(Self::Process),
            Ok(SignalScope::Group) => Ok(Self::Group),
            Ok(SignalScope::Tree) => Ok(Self::Tree),
            Err(_unknown) => Err(ProcessError::InvalidScope(number)),
        }
    }
}

/// What a SendSignal request asks for.
///
/// # Errors
/// For a number that is no signal, and for an unknown scope.
pub(super) fn asked_for(request: &SendSignalRequest) -> Result<(i32, Scope), ProcessError> {
    let signal = request.signal;
    if !SIGNALS.contains(&signal) {
        let name = Signal::try_from(signal).map(|signal| signal.as_str_name().to_owned());
        return Err(ProcessError::InvalidSignal(name.unwrap_or_else(|_| signal.to_string())));
    }
    let descendants = if request.descendants { Scope::Group } else { Scope::Process };
    Ok((signal, Scope::of(request.scope)?.max(descendants)))
}

/// The signal with this number; 0 is the default.
///
/// # Errors
/// For a number that is no signal.
pub(super) fn number_or(number: u32, default: i32) -> Result<i32, ProcessError> {
    match i32::try_from(number) {
        Ok(0) => Ok(default),
        Ok(signal) if SIGNALS.contains(&signal) => Ok(signal),
        _ => Err(ProcessError::InvalidLimitSignal(number)),
    }
}

/// Whether the sender wants the process to end, and no longer waits for who else holds its output open.
pub(super) fn releases(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGKILL)
}

/// Sends the signal, then does what follows, also when the caller is gone by then.
///
/// # Errors
/// As kill(2), without ESRCH.
pub(super) async fn send(
    child: Arc<Child>,
    signal: i32,
    scope: Scope,
    then: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let send = move || {
        let sent = match scope {
            Scope::Process => child.signal(signal),
            Scope::Group => child.signal_group(signal),
            Scope::Tree => match child.control_group() {
                Some(group) if signal == libc::SIGKILL => group.kill(),
                Some(group) => group.signal(signal),
                None => tree::signal_tree(&child, signal),
            },
        };
        sent.map(|()| then())
    };
    match scope {
        Scope::Process => send(),
        // May look through procfs.
        Scope::Group | Scope::Tree => tokio::task::spawn_blocking(send).await.map_err(io::Error::other)?,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn ask(signal: i32, descendants: bool, scope: i32) -> Result<(i32, Scope), String> {
        let request = SendSignalRequest { process: None, signal, descendants, scope };
        asked_for(&request).map_err(|error| error.to_string())
    }

    #[test]
    fn every_signal_may_be_sent_and_nothing_else() {
        for signal in SIGNALS {
            assert_eq!(ask(signal, false, 0), Ok((signal, Scope::Process)));
        }
        assert_eq!(ask(0, false, 0).unwrap_err(), "invalid signal: SIGNAL_UNSPECIFIED");
        for signal in [-1, 65, i32::MIN, i32::MAX] {
            assert_eq!(ask(signal, false, 0).unwrap_err(), format!("invalid signal: {signal}"));
        }
    }

    #[test]
    fn the_wider_scope_counts() {
        assert_eq!(ask(1, true, 0), Ok((1, Scope::Group)));
        assert_eq!(ask(1, true, 1), Ok((1, Scope::Group)));
        assert_eq!(ask(1, true, 2), Ok((1, Scope::Tree)));
        assert_eq!(ask(1, false, 2), Ok((1, Scope::Tree)));
        assert_eq!(ask(1, false, 3).unwrap_err(), "invalid signal scope: 3");
    }
}
