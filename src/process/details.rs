//! What is told about a process besides its status: to those who ask for details.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    procfs::{Resident, Stat},
    running::Process,
    status::{Ended, ExitStatus},
};
use crate::proto::{
    process::{EndDetails, ProcessDetails, ProcessInfo, process_event::EndEvent},
    timestamp::Timestamp,
};

/// The last event of a process, with all its details.
pub(super) fn end_event(process: &Process, ended: &Ended, time_limit_exceeded: bool) -> EndEvent {
    let oom_killed = process.control_group().is_some_and(|group| group.oom_kills() > 0);
    let mut event = plain_event(ended.status, time_limit_exceeded, oom_killed);
    let signal = match ended.status {
        ExitStatus::Signaled { signal, .. } => u32::try_from(signal).unwrap_or(0),
        ExitStatus::Exited(_) | ExitStatus::Lost => 0,
    };
    event.details = Some(EndDetails {
        started_at: Some(timestamp(process.started_at)),
        ended_at: Some(timestamp(ended.at)),
        user_time_us: ended.usage.user_us,
        system_time_us: ended.usage.system_us,
        peak_resident_bytes: ended.usage.peak_resident_bytes,
        oom_killed,
        time_limit_exceeded,
        spawn_failure: process.spawn_failure().cloned(),
        signal,
        output_bytes: process.log.written(),
    });
    event
}

/// The event without details; its error says what the status cannot.
fn plain_event(status: ExitStatus, time_limit_exceeded: bool, oom_killed: bool) -> EndEvent {
    let mut event = status.to_event();
    // The kernel may have taken another process of the group; then this one ended in its own way.
    let killed = matches!(status, ExitStatus::Signaled { signal: libc::SIGKILL, .. });
    let reason = match (time_limit_exceeded, oom_killed && killed) {
        (true, _) => ": time limit exceeded",
        (false, true) => ": out of memory",
        (false, false) => "",
    };
    if let Some(error) = &mut event.error {
        error.push_str(reason);
    }
    event
}

/// What a list says about a process. Blocking: it reads procfs.
pub(super) fn detailed_info(process: &Process) -> ProcessInfo {
    let mut details = ProcessDetails {
        started_at: Some(timestamp(process.started_at)),
        output_bytes: process.log.written(),
        ..ProcessDetails::default()
    };
    if let Some(ended) = process.ended() {
        details.user_time_us = ended.usage.user_us;
        details.system_time_us = ended.usage.system_us;
        details.peak_resident_bytes = ended.usage.peak_resident_bytes;
        details.ended_at = Some(timestamp(ended.at));
        details.end = process.end.get().cloned();
        if details.end.is_none() {
            details.state = "Z".to_owned();
        }
    } else if let (Some(stat), Some(resident)) = (Stat::of(process.pid()), Resident::of(process.pid()))
        // After the look: then the number was its own until now.
        && !process.was_reaped()
    {
        details.state = stat.state.to_string();
        details.user_time_us = stat.user_us;
        details.system_time_us = stat.system_us;
        details.resident_bytes = resident.now;
        details.peak_resident_bytes = resident.peak;
    } else if process.was_reaped() {
        details.state = "Z".to_owned();
    }
    ProcessInfo { details: Some(details), ..process.info() }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    Timestamp::clamped(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_error_tells_of_time_and_memory() {
        let killed = ExitStatus::Signaled { signal: libc::SIGKILL, core_dumped: false };
        for (status, exceeded, oom_killed, text, error) in [
            (killed, false, false, "signal: killed", Some("signal: killed")),
            (killed, false, true, "signal: killed", Some("signal: killed: out of memory")),
            (killed, true, true, "signal: killed", Some("signal: killed: time limit exceeded")),
            (ExitStatus::Exited(137), false, true, "exit status 137", Some("exit status 137")),
            (ExitStatus::Exited(0), true, true, "exit status 0", None),
        ] {
            let event = plain_event(status, exceeded, oom_killed);
            assert_eq!((event.status.as_str(), event.error.as_deref()), (text, error));
        }
    }
}
