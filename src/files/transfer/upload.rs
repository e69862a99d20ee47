//! `POST /files`, the async side: network and disk work at the same time, one batch apart.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join;
use http::HeaderMap;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Error, FileQuery, Transfers,
    intake::{Intake, Step, Written},
    off_thread,
    source::{Batch, Ending},
    target::WRITE_BYTES,
};
use crate::Body;

/// How much of a refused upload is read and forgotten, so that the client sees the answer; in bytes.
const DRAIN_BYTES: usize = 16 * 1024 * 1024;

/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// A request body as it arrives.
pub(super) struct Arrival {
    body: Body,
    is_over: bool,
    idle_limit: Duration,
}

impl Arrival {
    pub(super) fn new(body: Body, idle_limit: Duration) -> Self {
        Self { body, is_over: false, idle_limit }
    }

    /// The next part of the body: everything that comes until it is large or over.
    pub(super) async fn batch(&mut self) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let mut length = 0;
        while length < WRITE_BYTES && batch.ending.is_none() {
            match timeout(self.idle_limit, self.chunk()).await {
                Ok(Some(Ok(bytes))) => {
                    length += bytes.len();
                    batch.chunks.push(bytes);
                    if self.body.is_end_stream() {
                        batch.ending = Some(Ending::Complete);
                    }
                }
                Ok(Some(Err(_))) => batch.ending = Some(Ending::Broken),
                Ok(None) => batch.ending = Some(Ending::Complete),
                Err(_) => return Err(Error::Stalled(self.idle_limit.as_secs())),
            }
        }
        self.is_over = batch.ending.is_some();
        Ok(batch)
    }

    async fn chunk(&mut self) -> Option<Result<Bytes, tonic::Status>> {
        loop {
            match Pin::new(&mut self.body).frame().await? {
                // Trailers say nothing about a file.
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) => return Some(Ok(bytes)),
                    Err(_trailers) => {}
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads and forgets what a client is still sending, within limits.
    pub(super) async fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_TIME;
        let mut left = DRAIN_BYTES;
        while !self.is_over && left > 0 {
            match timeout_at(deadline, self.chunk()).await {
                Ok(Some(Ok(bytes))) => left = left.saturating_sub(bytes.len()),
                _ => self.is_over = true,
            }
        }
    }
}

/// Writes what arrives and lists the files. When this future is dropped, a file that is not complete is removed if
/// it is new.
pub(super) async fn receive(
    transfers: &Transfers,
    query: FileQuery,
    headers: HeaderMap,
    arrival: &mut Arrival,
) -> Result<Vec<Written>, Error> {
    let first = arrival.batch().await?;
    let begin = transfers.clone();
    let (mut intake, mut step) = {
        let work = off_thread(move || {
            let mut intake = Intake::begin(begin, query, &headers, first)?;
            let step = intake.run()?;
            Ok((intake, step))
        });
        work.await?
    };
    let mut next = None;
    loop {
        match step {
            Step::Done(written) => return Ok(written),
            Step::Wait(waiter) => intake.grant(waiter.wait().await),
            Step::More => {
                let batch = match next.take() {
                    Some(batch) => batch,
                    None => arrival.batch().await?,
                };
                intake.feed(batch);
            }
        }
        let work = off_thread(move || {
            let step = intake.run()?;
            Ok((intake, step))
        });
        (intake, step) = if next.is_some() || arrival.is_over {
            work.await?
        } else {
            let (done, batch) = try_join(work, arrival.batch()).await?;
            next = Some(batch);
            done
        };
    }
}
