//! `GET /files`: from a query to a response whose body is still to be read.

use std::{
    collections::VecDeque,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use rustix::fs::OFlags;

use super::{
    Error, FileQuery, Transfers,
    body::{FileBody, Segment},
    condition::{self, Validators, Verdict},
    content,
    negotiation::{self, Encoding},
    range::{ByteRange, RangeError, parse_ranges},
};
use crate::Body;

/// Files up to this size are read at once and answered without another hop, in bytes.
const SMALL_BYTES: usize = 64 * 1024;

/// Compressed bodies up to this size carry a `Content-Length`, in bytes.
const SMALL_GZIP_BYTES: usize = 2 * 1024;

/// A sample that compresses to more than this share of itself, in percent, is stored and not compressed: media and
/// archives then cost a copy and a checksum only.
const WORTH_PERCENT: usize = 95;

/// How a file can be read.
enum Content {
    /// All of it, already read. `validators` are trusted only if the size was.
    Whole(Bytes),
    /// A regular file of this size in bytes, larger than [`SMALL_BYTES`].
    Sized(u64),
    /// Until the end, beginning with these bytes.
    Endless(Bytes),
}

struct Download {
    file: File,
    path: PathBuf,
    content: Content,
    validators: Validators,
    /// By extension only.
    kind: Option<String>,
}

/// Answers a download. Blocking: everything up to the first bytes happens here, in one hop.
pub(super) fn respond(transfers: &Transfers, query: &FileQuery, headers: &HeaderMap) -> Result<Response<Body>, Error> {
    let user = transfers.user(query.username.as_deref())?;
    let raw = query.path.as_deref().unwrap_or_default();
    let path = transfers.resolve(raw, &user)?;
    match fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => return Err(Error::DownloadDirectory(path)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(path)),
        Err(source) => return Err(Error::Check { path, source }),
    }
    let mut response = negotiated(path, raw, headers).unwrap_or_else(Response::from);
    // Errors of the negotiation, and after it, depend on this header as well.
    set(&mut response, header::VARY, "Accept-Encoding");
    Ok(response)
}

fn negotiated(path: PathBuf, raw: &str, headers: &HeaderMap) -> Result<Response<Body>, Error> {
    let accepted = negotiation::accepted(headers);
    let mut encoding = accepted.best.ok_or(Error::NoEncoding)?;
    if condition::needs_identity(headers) {
        if !accepted.identity {
            return Err(Error::IdentityRefused);
        }
        encoding = Encoding::Identity;
    }
    let download = open(path, raw)?;
    match encoding {
        Encoding::Identity => plain(download, headers),
        Encoding::Gzip => gzip(download),
    }
}

fn open(path: PathBuf, raw: &str) -> Result<Download, Error> {
    // A FIFO without a writer must not hold the thread, a terminal must not become ours.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path).and_then(|mut file| {
        let meta = file.metadata()?;
        let content = look(&mut file, &meta)?;
        Ok((file, meta, content))
    });
    let (file, meta, content) = match opened {
        Ok(opened) => opened,
        Err(source) => return Err(Error::OpenDownload { path, source }),
    };
    let size = match &content {
        Content::Whole(bytes) => Some(bytes.len() as u64),
        Content::Sized(size) => Some(*size),
        Content::Endless(_) => None,
    };
    // What the kernel makes up at each read has neither a version nor a date worth telling.
    let validators = if meta.is_file() && size == Some(meta.size()) {
        Validators::of(meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
    } else {
        Validators::default()
    };
    Ok(Download { file, path, content, validators, kind: content::type_by_extension(raw) })
}

/// Finds out how the file can be read. The size is believed only where reading agrees: files in procfs claim to be
/// empty, those in sysfs to be one page long.
fn look(file: &mut File, meta: &Metadata) -> io::Result<Content> {
    if !meta.is_file() {
        return Ok(Content::Endless(Bytes::new()));
    }
    let size = meta.size();
    let Some(claimed) = usize::try_from(size).ok().filter(|size| *size <= SMALL_BYTES) else {
        return Ok(Content::Sized(size));
    };
    // One byte more tells a file that goes on from one that ends here.
    let limit = if claimed == 0 { SMALL_BYTES } else { claimed };
    let mut head = Vec::with_capacity(limit + 1);
    match Read::by_ref(file).take(limit as u64 + 1).read_to_end(&mut head) {
        Ok(_) => {}
        // A log of the kernel with nothing new to say.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Content::Endless(head.into())),
        Err(error) => return Err(error),
    }
    if head.len() > limit {
        if claimed == 0 {
            return Ok(Content::Endless(head.into()));
        }
        // It has grown since; this answer is about the file as it was.
        head.truncate(limit);
    }
    Ok(Content::Whole(head.into()))
}

fn plain(download: Download, headers: &HeaderMap) -> Result<Response<Body>, Error> {
    let Download { file, path, content, validators, kind } = download;
    let mut response = Response::new(Body::empty());
    set(&mut response, header::CONTENT_DISPOSITION, &content::disposition(&path));
    let size = match &content {
        Content::Whole(bytes) => bytes.len() as u64,
        Content::Sized(size) => *size,
        Content::Endless(_) => {
            set(&mut response, header::CONTENT_TYPE, &kind.unwrap_or_else(content::unknown_type));
            *response.body_mut() = Body::new(FileBody::plain(file, segments(content, None)));
            return Ok(response);
        }
    };
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    if let Some(etag) = &validators.etag {
        set(&mut response, header::ETAG, etag);
    }
    if let Some(modified) = validators.modified {
        set(&mut response, header::LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    }
    let ranges = match condition::evaluate(headers, &validators) {
        Verdict::Send { ranges } => ranges,
        Verdict::NotModified => return Ok(with_status(response, StatusCode::NOT_MODIFIED)),
        Verdict::Failed => return Ok(with_status(response, StatusCode::PRECONDITION_FAILED)),
    };
    let header = headers.get(header::RANGE).filter(|_| ranges);
    let parsed = header.map_or(Ok(Vec::new()), |value| {
        value.to_str().map_err(|_| RangeError::Malformed).and_then(|text| parse_ranges(text, size))
    });
    let ranges = match parsed {
        Ok(ranges) => ranges,
        Err(error) => return Ok(unsatisfiable(error, size)),
    };
    let kind = match kind {
        Some(kind) => kind,
        None => sniff(&file, &content).map_err(|source| Error::OpenDownload { path, source })?.to_owned(),
    };
    let (kind, length, body) = match ranges.as_slice() {
        [] => (kind, size, segments(content, None)),
        [range] => {
            set(&mut response, header::CONTENT_RANGE, &range.content_range(size));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (kind, range.length, segments(content, Some(*range)))
        }
        several => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            byte_ranges(&content, several, size, &kind)
        }
    };
    set(&mut response, header::CONTENT_TYPE, &kind);
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    *response.body_mut() = match whole(&body) {
        Some(bytes) => Body::new(Full::new(bytes)),
        None => Body::new(FileBody::plain(file, body)),
    };
    Ok(response)
}

/// The one chunk of a body that needs no reading.
fn whole(body: &VecDeque<Segment>) -> Option<Bytes> {
    match (body.front(), body.len()) {
        (None, _) => Some(Bytes::new()),
        (Some(Segment::Bytes(bytes)), 1) => Some(bytes.clone()),
        _ => None,
    }
}

fn sniff(file: &File, content: &Content) -> io::Result<&'static str> {
    let mut start = [0; content::SNIFF_BYTES];
    Ok(match content {
        Content::Whole(bytes) | Content::Endless(bytes) => content::sniff_type(bytes),
        Content::Sized(_) => {
            let read = file.read_at(&mut start, 0)?;
            content::sniff_type(start.get(..read).unwrap_or_default())
        }
    })
}

/// All of the content, or one range of it.
fn segments(content: Content, range: Option<ByteRange>) -> VecDeque<Segment> {
    match content {
        Content::Endless(head) if head.is_empty() => [Segment::Rest].into(),
        Content::Endless(head) => [Segment::Bytes(head), Segment::Rest].into(),
        Content::Whole(bytes) => [Segment::Bytes(cut(&bytes, range))].into(),
        Content::Sized(size) => {
            let ByteRange { start: offset, length } = range.unwrap_or(ByteRange { start: 0, length: size });
            [Segment::Part { offset, length }].into()
        }
    }
}

fn cut(bytes: &Bytes, range: Option<ByteRange>) -> Bytes {
    let Some(range) = range else { return bytes.clone() };
    let at = |position: u64| usize::try_from(position).map_or(bytes.len(), |position| position.min(bytes.len()));
    bytes.slice(at(range.start)..at(range.start + range.length))
}

/// A `multipart/byteranges` body with its type and length (RFC 9110, section 14.6).
fn byte_ranges(content: &Content, ranges: &[ByteRange], size: u64, kind: &str) -> (String, u64, VecDeque<Segment>) {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let mut body = VecDeque::with_capacity(ranges.len() * 2 + 1);
    let mut length = 0;
    let mut push_text = |body: &mut VecDeque<Segment>, text: String| {
        length += text.len() as u64;
        body.push_back(Segment::Bytes(text.into()));
    };
    for (position, range) in ranges.iter().enumerate() {
        let line_end = if position == 0 { "" } else { "\r\n" };
        let content_range = range.content_range(size);
        push_text(
            &mut body,
            format!("{line_end}--{boundary}\r\nContent-Range: {content_range}\r\nContent-Type: {kind}\r\n\r\n"),
        );
        body.push_back(match content {
            Content::Whole(bytes) | Content::Endless(bytes) => Segment::Bytes(cut(bytes, Some(*range))),
            Content::Sized(_) => Segment::Part { offset: range.start, length: range.length },
        });
    }
    push_text(&mut body, format!("\r\n--{boundary}--\r\n"));
    let length = length + ranges.iter().map(|range| range.length).sum::<u64>();
    (format!("multipart/byteranges; boundary={boundary}"), length, body)
}

fn unsatisfiable(error: RangeError, size: u64) -> Response<Body> {
    let (text, range) = match error {
        RangeError::BehindEnd => ("invalid range: failed to overlap\n", Some(format!("bytes */{size}"))),
        RangeError::Malformed => ("invalid range\n", None),
    };
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    if let Some(range) = range {
        set(&mut response, header::CONTENT_RANGE, &range);
    }
    set(&mut response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

fn gzip(download: Download) -> Result<Response<Body>, Error> {
    let Download { file, path, content, kind, .. } = download;
    let mut response = Response::new(Body::empty());
    set(&mut response, header::CONTENT_DISPOSITION, &content::disposition(&path));
    set(&mut response, header::CONTENT_TYPE, &kind.unwrap_or_else(content::unknown_type));
    set(&mut response, header::CONTENT_ENCODING, "gzip");
    let level = match &content {
        Content::Whole(bytes) => {
            let body = compress(bytes, Compression::fast());
            if body.len() <= SMALL_GZIP_BYTES {
                set(&mut response, header::CONTENT_LENGTH, &body.len().to_string());
                *response.body_mut() = Body::new(Full::new(body.into()));
                return Ok(response);
            }
            if is_worth(bytes.len(), body.len()) { Compression::fast() } else { Compression::none() }
        }
        Content::Sized(_) => {
            let mut sample = vec![0; SMALL_BYTES];
            let read = file.read_at(&mut sample, 0).map_err(|source| Error::OpenDownload { path, source })?;
            sample.truncate(read);
            let compressed = compress(&sample, Compression::fast()).len();
            if is_worth(read, compressed) { Compression::fast() } else { Compression::none() }
        }
        Content::Endless(_) => Compression::fast(),
    };
    *response.body_mut() = Body::new(FileBody::gzip(file, segments(content, None), level));
    Ok(response)
}

fn is_worth(plain: usize, compressed: usize) -> bool {
    compressed.saturating_mul(100) <= plain.saturating_mul(WORTH_PERCENT)
}

fn compress(plain: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    // Writing to memory does not fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default()
}

fn with_status(mut response: Response<Body>, status: StatusCode) -> Response<Body> {
    *response.status_mut() = status;
    response
}

/// Sets a header; all values are ASCII by construction.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
