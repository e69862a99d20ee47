//! What a download says about its content: type and file name.

use std::{ffi::OsStr, fmt::Write as _, path::Path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

const BINARY: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";

/// How much of a file is looked at to guess its type, in bytes.
pub(super) const SNIFF_BYTES: usize = 512;

/// The type that belongs to the extension of a path; text types name their character set.
pub(super) fn type_by_extension(path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let (_, extension) = name.rsplit_once('.')?;
    let guess = mime_guess::from_ext(extension).first_raw()?;
    Some(if guess.starts_with("text/") { format!("{guess}; charset=utf-8") } else { guess.to_owned() })
}

/// The type without an extension and without a look inside.
pub(super) fn unknown_type() -> String {
    BINARY.to_owned()
}

/// First bytes that give a type away, from the WHATWG MIME sniffing standard.
const SIGNATURES: &[(&[u8], &str)] = &[
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xFE\xFF", "text/plain; charset=utf-16be"),
    (b"\xFF\xFE", "text/plain; charset=utf-16le"),
    (b"\xEF\xBB\xBF", TEXT),
    (b"\x89PNG\r\n\x1A\n", "image/png"),
    (b"\xFF\xD8\xFF", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"OggS\x00", "application/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"\x1A\x45\xDF\xA3", "video/webm"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1F\x8B\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1A\x07\x00", "application/x-rar-compressed"),
    (b"Rar!\x1A\x07\x01\x00", "application/x-rar-compressed"),
    (b"\x00\x61\x73\x6D", "application/wasm"),
];

/// Forms inside a RIFF container, told by the bytes 8 and on.
const RIFF_FORMS: &[(&[u8], &str)] = &[(b"WEBPVP", "image/webp"), (b"WAVE", "audio/wave"), (b"AVI ", "video/avi")];

/// HTML tags that a document may begin with, compared without regard to case.
const HTML_STARTS: &[&[u8]] = &[
    b"<!doctype html",
    b"<html",
    b"<head",
    b"<script",
    b"<iframe",
    b"<h1",
    b"<div",
    b"<font",
    b"<table",
    b"<a",
    b"<style",
    b"<title",
    b"<b",
    b"<body",
    b"<br",
    b"<p",
    b"<!--",
];

/// Guesses the type from the first [`SNIFF_BYTES`] of the content.
pub(super) fn sniff_type(content: &[u8]) -> &'static str {
    let content = content.get(..SNIFF_BYTES).unwrap_or(content);
    let trimmed = content.trim_ascii_start();
    let is_html = HTML_STARTS.iter().any(|tag| {
        trimmed.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag))
            && (*tag == b"<!--" || matches!(trimmed.get(tag.len()), Some(b' ' | b'>')))
    });
    if is_html {
        return "text/html; charset=utf-8";
    }
    if trimmed.starts_with(b"<?xml") {
        return "text/xml; charset=utf-8";
    }
    if let Some((_, kind)) = SIGNATURES.iter().find(|(signature, _)| content.starts_with(signature)) {
        return kind;
    }
    if content.starts_with(b"RIFF")
        && let Some(form) = content.get(8..)
        && let Some((_, kind)) = RIFF_FORMS.iter().find(|(signature, _)| form.starts_with(signature))
    {
        return kind;
    }
    if content.get(4..8) == Some(b"ftyp") {
        return "video/mp4";
    }
    let is_binary = |byte: &u8| matches!(byte, 0x00..=0x08 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F);
    if content.iter().any(is_binary) { BINARY } else { TEXT }
}

/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `inline` with the file's name: bare where it is a token (RFC 2616), quoted where it is other ASCII,
/// percent-encoded (RFC 5987) where it is not.
pub(super) fn disposition(path: &Path) -> String {
    let name: &OsStr = crate::system::path::base_name(path);
    let bytes = name.as_encoded_bytes();
    // Control characters cannot stand in a header at all.
    let Some(text) = name.to_str().filter(|text| text.bytes().all(|byte| (0x20..0x7F).contains(&byte))) else {
        return format!("inline; filename*=utf-8''{}", percent_encode(bytes, ENCODED));
    };
    if !text.is_empty() && text.bytes().all(is_token) {
        return format!("inline; filename={text}");
    }
    let mut quoted = String::from("inline; filename=\"");
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        let _ = quoted.write_char(letter);
    }
    quoted.push('"');
    quoted
}

/// A character of a `token` (RFC 2616, section 2.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispositions_are_bare_quoted_or_encoded() {
        for (path, expected) in [
            ("/home/user/.env", "inline; filename=.env"),
            ("/x/a.tar.gz", "inline; filename=a.tar.gz"),
            ("/x/my document.pdf", "inline; filename=\"my document.pdf\""),
            ("/x/say \"hi\"\\", "inline; filename=\"say \\\"hi\\\"\\\\\""),
            ("/x/résumé.txt", "inline; filename*=utf-8''r%C3%A9sum%C3%A9.txt"),
            ("/x/a\r\nb", "inline; filename*=utf-8''a%0D%0Ab"),
        ] {
            assert_eq!(disposition(Path::new(path)), expected);
        }
    }

    #[test]
    fn extensions_decide_first() {
        assert_eq!(type_by_extension("/a/b.txt").as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(type_by_extension("b.JSON").as_deref(), Some("application/json"));
        assert_eq!(type_by_extension("/a.png/b"), None);
        assert_eq!(type_by_extension("/a/b.no-such-thing"), None);
    }

    #[test]
    fn content_is_sniffed() {
        for (content, expected) in [
            (&b""[..], TEXT),
            (b"hello\n", TEXT),
            (b"\x1b[1mbold", TEXT),
            (b"a\0b", BINARY),
            (b"  <!DOCTYPE html>", "text/html; charset=utf-8"),
            (b"<apple>", TEXT),
            (b"<?xml version", "text/xml; charset=utf-8"),
            (b"\x89PNG\r\n\x1A\n....", "image/png"),
            (b"RIFF\0\0\0\0WAVEfmt ", "audio/wave"),
            (b"PK\x03\x04", "application/zip"),
        ] {
            assert_eq!(sniff_type(content), expected, "{content:?}");
        }
    }

    #[test]
    fn only_the_beginning_is_sniffed() {
        let mut content = vec![b'a'; SNIFF_BYTES];
        content.push(0);
        assert_eq!(sniff_type(&content), TEXT);
    }
}
