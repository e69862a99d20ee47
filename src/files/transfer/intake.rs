//! An upload as a state machine: fed with what has arrived, it writes files until it needs more.
//!
//! It owns no thread and waits for nobody: where it cannot go on it says why, and the async side waits.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use http::{HeaderMap, header};
use serde::Serialize;

use super::{
    Error, FileQuery, Transfers,
    form::{Event, Form},
    headers::{Parameterized, parse_metadata},
    locks::{Held, Waiter},
    source::{Batch, Piece, Source},
    target::{Opening, Order, Target},
};
use crate::{files::metadata::Metadata, system::path::base_name};

/// A file that was written, as the response lists it.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    name: String,
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
}

impl Written {
    pub(super) fn file(path: &Path, metadata: Metadata) -> Self {
        Self {
            name: base_name(path).to_string_lossy().into_owned(),
            path: path.to_string_lossy().into_owned(),
            kind: "file",
            metadata,
        }
    }
}

/// Where the work has got to.
#[derive(Debug)]
pub(super) enum Step {
    /// All that has arrived is dealt with.
    More,
    /// The next file is being written by somebody else.
    Wait(Waiter),
    /// The upload is complete.
    Done(Vec<Written>),
}

enum Shape {
    Raw,
    Form(Box<Form>),
}

/// One upload.
pub(super) struct Intake {
    transfers: Transfers,
    order: Order,
    /// Where everything goes, if the query says so.
    path: Option<String>,
    source: Source,
    shape: Shape,
    /// The file to open next, with its lock if that had to be waited for.
    opening: Option<(PathBuf, Option<Held>)>,
    target: Option<(PathBuf, Target)>,
    seen: HashSet<PathBuf>,
    written: Vec<Written>,
}

impl Intake {
    /// Checks everything that can be checked before the first file. Blocking.
    pub(super) fn begin(
        transfers: Transfers,
        query: FileQuery,
        headers: &HeaderMap,
        first: Batch,
    ) -> Result<Self, Error> {
        let name = transfers.user_name(query.username.as_deref())?;
        let (source, is_plain) = decode(headers, first)?;
        let user = transfers.user(Some(&name))?;
        let metadata = parse_metadata(headers)?;
        let attempted = text(headers, header::CONTENT_LENGTH).parse().ok().filter(|length| *length > 0);
        let kind = text(headers, header::CONTENT_TYPE);
        let mut opening = None;
        let mut length = None;
        let shape = match media_type(kind).as_str() {
            "application/octet-stream" => {
                let raw = query.path.as_deref().ok_or(Error::PathRequired)?;
                opening = Some((transfers.resolve(raw, &user)?, None));
                length = attempted.filter(|_| is_plain);
                Shape::Raw
            }
            form if form.starts_with("multipart/") => Shape::Form(Box::new(form_of(kind)?)),
            _ => return Err(Error::ContentType(kind.to_owned())),
        };
        let order = Order { user, metadata, attempted, length, transfers: transfers.clone() };
        let (seen, written) = (HashSet::new(), Vec::new());
        Ok(Self { transfers, order, path: query.path, source, shape, opening, target: None, seen, written })
    }

    /// Adds what has arrived.
    pub(super) fn feed(&mut self, batch: Batch) {
        self.source.feed(batch);
    }

    /// Adds the lock that [`Step::Wait`] asked for.
    pub(super) fn grant(&mut self, lock: Held) {
        if let Some((_, held)) = &mut self.opening {
            *held = Some(lock);
        }
    }

    /// Goes on as far as possible. Blocking.
    pub(super) fn run(&mut self) -> Result<Step, Error> {
        loop {
            if let Some((path, held)) = self.opening.take() {
                match Target::open(&self.order, &path, held)? {
                    Opening::Open(target) => self.target = Some((path, target)),
                    Opening::Busy(waiter) => {
                        self.opening = Some((path, None));
                        return Ok(Step::Wait(waiter));
                    }
                }
            }
            match self.next_event()? {
                Event::Part(disposition) => self.begin_part(disposition)?,
                Event::Data(bytes) => {
                    if let Some((_, target)) = &mut self.target {
                        target.write(bytes)?;
                    }
                }
                Event::PartEnd => self.end_file()?,
                Event::End => {
                    self.end_file()?;
                    return Ok(Step::Done(std::mem::take(&mut self.written)));
                }
                Event::Wait => return Ok(Step::More),
            }
        }
    }

    fn next_event(&mut self) -> Result<Event, Error> {
        let event = match &mut self.shape {
            Shape::Raw => self.source.next().map(|piece| match piece {
                Piece::Data(bytes) => Event::Data(bytes),
                Piece::Wait => Event::Wait,
                Piece::End => Event::End,
            }),
            Shape::Form(form) => form.next(&mut self.source),
        };
        event.map_err(|cause| if self.target.is_some() { Error::Write(cause) } else { Error::Form(cause) })
    }

    /// Parts that are not called `file` are read and forgotten.
    fn begin_part(&mut self, disposition: Option<Parameterized>) -> Result<(), Error> {
        let is_file = |part: &Parameterized| part.value == "form-data" && part.parameter("name") == Some("file");
        let Some(part) = disposition.filter(is_file) else { return Ok(()) };
        let raw = match &self.path {
            Some(path) => path.clone(),
            None => part.file_name().ok_or(Error::NoFileName)?,
        };
        let path = self.transfers.resolve(&raw, &self.order.user)?;
        if !self.seen.insert(path.clone()) {
            let own = path.to_string_lossy();
            let others = self.written.iter().map(|file| file.path.clone()).filter(|other| *other != own).collect();
            return Err(Error::SamePath { path, others });
        }
        self.opening = Some((path, None));
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), Error> {
        if let Some((path, target)) = self.target.take() {
            let metadata = target.finish(&self.order.metadata)?;
            self.written.push(Written::file(&path, metadata));
        }
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: http::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What stands before the parameters, in lower case.
fn media_type(header: &str) -> String {
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The body as it was before compression, and whether there was none.
fn decode(headers: &HeaderMap, first: Batch) -> Result<(Source, bool), Error> {
    let raw = text(headers, header::CONTENT_ENCODING);
    match media_type(raw).as_str() {
        "" | "identity" => Ok((Source::plain(first), true)),
        "gzip" => Ok((Source::gzip(first).map_err(Error::GzipHeader)?, false)),
        _ => Err(Error::ContentEncoding(raw.to_owned())),
    }
}

fn form_of(kind: &str) -> Result<Form, Error> {
    let parsed = Parameterized::parse(kind).ok_or(Error::NoBoundary)?;
    if !matches!(parsed.value.as_str(), "multipart/form-data" | "multipart/mixed") {
        return Err(Error::NotForm);
    }
    let boundary = parsed.parameter("boundary").filter(|boundary| !boundary.is_empty()).ok_or(Error::NoBoundary)?;
    Ok(Form::new(boundary))
}
