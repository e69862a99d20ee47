//! All remote procedures: each service once, in three protocols.

use http::{HeaderMap, Request, Response};
use serde::Serialize;
use tonic::{Status, codec::CompressionEncoding::Gzip};

use super::{
    grpc::{Grpc, Protocol},
    handler::{self, Reply},
};
use crate::{
    Body,
    connect::{DEFAULT_MAX_MESSAGE_BYTES, Router, error_response},
    files::FilesystemService,
    process::{ProcessService, encode_connect_data, encode_start_data},
    proto::{
        filesystem::filesystem_server::{self, Filesystem, FilesystemServer},
        process::{
            ConnectResponse, StartResponse,
            process_server::{self, Process, ProcessServer},
        },
    },
    system::buffers::Buffer,
};

/// The services of the agent port; cheap to clone.
#[derive(Clone)]
pub(super) struct Procedures {
    connect: Router,
    grpc: Grpc,
}

impl Procedures {
    pub(super) fn new(process: ProcessService, filesystem: FilesystemService) -> Self {
        let grpc = Grpc::default()
            .service(
                ProcessServer::new(process.clone())
                    .accept_compressed(Gzip)
                    .send_compressed(Gzip)
                    .max_decoding_message_size(DEFAULT_MAX_MESSAGE_BYTES),
            )
            .service(
                FilesystemServer::new(filesystem.clone())
                    .accept_compressed(Gzip)
                    .send_compressed(Gzip)
                    .max_decoding_message_size(DEFAULT_MAX_MESSAGE_BYTES),
            );
        let connect = Router::new();
        let connect = connect.service(process_server::SERVICE_NAME, process, |methods| {
            methods
                .unary("List", |service, request| async move { service.list(request).await })
                .server_stream_with(
                    "Connect",
                    |service, request| async move { service.connect(request).await },
                    write_connect,
                )
                .server_stream_with(
                    "Start",
                    |service, request| async move { service.start(request).await },
                    write_start,
                )
                .unary("Update", |service, request| async move { service.update(request).await })
                .client_stream("StreamInput", |service, request| async move { service.stream_input(request).await })
                .unary("SendInput", |service, request| async move { service.send_input(request).await })
                .unary("SendSignal", |service, request| async move { service.send_signal(request).await })
                .unary("CloseStdin", |service, request| async move { service.close_stdin(request).await })
        });
        let connect = connect.service(filesystem_server::SERVICE_NAME, filesystem, |methods| {
            methods
                .unary("Stat", |service, request| async move { service.stat(request).await })
                .unary("MakeDir", |service, request| async move { service.make_dir(request).await })
                .unary("Move", |service, request| async move { service.r#move(request).await })
                .unary("ListDir", |service, request| async move { service.list_dir(request).await })
                .unary("Remove", |service, request| async move { service.remove(request).await })
                .server_stream("WatchDir", |service, request| async move { service.watch_dir(request).await })
                .unary("CreateWatcher", |service, request| async move { service.create_watcher(request).await })
                .unary("GetWatcherEvents", |service, request| async move { service.get_watcher_events(request).await })
                .unary("RemoveWatcher", |service, request| async move { service.remove_watcher(request).await })
        });
        Self { connect, grpc }
    }
}

impl handler::Procedures for Procedures {
    fn has(&self, path: &str) -> bool {
        self.connect.has(path)
    }

    fn call(&self, request: Request<Body>) -> Reply {
        match Protocol::of(request.headers()) {
            Some(protocol) => self.grpc.call(protocol, request),
            None => {
                let connect = self.connect.clone();
                Box::pin(async move { connect.call(request).await })
            }
        }
    }

    fn error(&self, headers: &HeaderMap, status: Status) -> Response<Body> {
        error_response(headers, status)
    }
}

/// Output goes the short way, everything else through serde.
fn write_start(message: &StartResponse, out: &mut Buffer) -> Result<(), String> {
    if encode_start_data(message, out) { Ok(()) } else { write_json(message, out) }
}

fn write_connect(message: &ConnectResponse, out: &mut Buffer) -> Result<(), String> {
    if encode_connect_data(message, out) { Ok(()) } else { write_json(message, out) }
}

fn write_json(message: &impl Serialize, out: &mut Buffer) -> Result<(), String> {
    serde_json::to_writer(out, message).map_err(|error| error.to_string())
}
