//! The oldest Python SDK, which calls itself exactly `connect-python` and crashes on response fields that it does
//! not know: it gets name, type and path of an entry, name and type of an event, and a header that says so.

use tonic::{
    Response,
    metadata::{MetadataMap, MetadataValue},
};

use crate::proto::filesystem::{EntryInfo, FilesystemEvent};

const USER_AGENT: &str = "connect-python";
const HEADER: &str = "x-e2b-legacy-sdk";

/// Whether the request comes from such a client.
pub(super) fn is_legacy(request: &MetadataMap) -> bool {
    request.get("user-agent").is_some_and(|agent| agent == USER_AGENT)
}

/// A response that announces the reduced schema to a legacy client.
pub(super) fn respond<T>(message: T, legacy: bool) -> Response<T> {
    let mut response = Response::new(message);
    if legacy {
        response.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
    }
    response
}

/// The entry with the fields of the oldest schema.
pub(super) fn reduce_entry(entry: EntryInfo) -> EntryInfo {
    EntryInfo { name: entry.name, r#type: entry.r#type, path: entry.path, ..EntryInfo::default() }
}

/// The event with the fields of the oldest schema.
pub(super) fn reduce_event(event: FilesystemEvent) -> FilesystemEvent {
    FilesystemEvent { entry: None, ..event }
}
