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
    let mut event = ended.status.to_event();
    if time_limit_exceeded && let Some(error) = &mut event.error {
        error.push_str(": time limit exceeded");
    }
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
        time_limit_exceeded,
        signal,
        output_bytes: process.log.written(),
        ..EndDetails::default()
    });
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
