//! Go-style flags: one or two dashes, `-name value` or `-name=value`, no clusters of letters.

use std::{ffi::OsString, vec};

use super::{Address, UsageError};

/// What is left of the command line.
#[derive(Debug)]
pub(super) struct Arguments {
    rest: vec::IntoIter<String>,
}

/// One step through the command line.
#[derive(Debug)]
pub(super) enum Argument {
    /// `-name` or `--name`, maybe with `=value`.
    Flag(Flag),
    /// Anything else.
    Word(String),
}

/// A flag as it was written.
#[derive(Debug)]
pub(super) struct Flag {
    written: String,
    name: String,
    inline: Option<String>,
}

impl Arguments {
    /// # Errors
    /// [`UsageError::NotUtf8`].
    pub(super) fn new(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let texts: Result<Vec<String>, _> = arguments.into_iter().map(OsString::into_string).collect();
        let texts = texts.map_err(|bytes| UsageError::NotUtf8(bytes.to_string_lossy().into_owned()))?;
        Ok(Self { rest: texts.into_iter() })
    }

    pub(super) fn next(&mut self) -> Option<Argument> {
        let text = self.rest.next()?;
        let bare = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
        let Some(bare) = bare.filter(|bare| bare.starts_with(|first: char| first.is_ascii_alphanumeric())) else {
            return Some(Argument::Word(text));
        };
        let (name, inline) = match bare.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (bare.to_owned(), None),
        };
        Some(Argument::Flag(Flag { written: text, name, inline }))
    }

    /// The value of a flag: what follows `=`, else the next argument whatever it looks like.
    pub(super) fn value(
        &mut self,
        flag: Flag,
        name: &'static str,
        expected: &'static str,
    ) -> Result<String, UsageError> {
        flag.inline.or_else(|| self.rest.next()).ok_or(UsageError::MissingValue { flag: name, expected })
    }

    /// As [`Arguments::value`], but not empty.
    pub(super) fn filled(
        &mut self,
        flag: Flag,
        name: &'static str,
        expected: &'static str,
    ) -> Result<String, UsageError> {
        let value = self.value(flag, name, expected)?;
        if value.is_empty() { Err(UsageError::MissingValue { flag: name, expected }) } else { Ok(value) }
    }

    /// The address behind `--listen` or `--code-listen`.
    pub(super) fn address(&mut self, flag: Flag, name: &'static str) -> Result<Address, UsageError> {
        let value = self.filled(flag, name, "URL, such as tcp://127.0.0.1:49983")?;
        value.parse().map_err(|source| UsageError::BadAddress { flag: name, value, source })
    }

    /// The name and value behind `--env`.
    pub(super) fn variable(&mut self, flag: Flag) -> Result<(String, String), UsageError> {
        const EXPECTED: &str = "NAME=VALUE";
        let text = self.filled(flag, "env", EXPECTED)?;
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            // The value may be a secret: only what cannot be one is repeated.
            Some(_) => Err(UsageError::BadValue { flag: "env", value: "=…".to_owned(), expected: EXPECTED }),
            None => Err(UsageError::BadValue { flag: "env", value: text, expected: EXPECTED }),
        }
    }
}

impl Flag {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The argument without its value, for messages.
    pub(super) fn written(&self) -> String {
        self.written.split('=').next().unwrap_or(&self.written).to_owned()
    }

    /// A flag that is on or off; `-name=false` turns it off, and it never takes the next argument.
    pub(super) fn switch(&self, name: &'static str) -> Result<bool, UsageError> {
        match self.inline.as_deref() {
            None | Some("true" | "t" | "T" | "TRUE" | "True" | "1") => Ok(true),
            Some("false" | "f" | "F" | "FALSE" | "False" | "0") => Ok(false),
            Some(other) => Err(UsageError::BadValue {
                flag: name,
                value: other.to_owned(),
                expected: "alone, or with =true or =false",
            }),
        }
    }
}
