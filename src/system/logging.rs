//! The log: lines on standard error.

use std::{io, panic};

use tracing::error;
use tracing_subscriber::{Layer, layer::SubscriberExt, registry, util::SubscriberInitExt};

use crate::config::{Format, Logging};

/// Starts logging for the whole process, panics included. A second call changes nothing.
pub fn start(logging: &Logging) {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    let layer = match logging.format {
        Format::Text => layer.with_target(false).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    if registry().with(layer.with_filter(logging.filter.clone())).try_init().is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
}

/// A panic's message may quote what a client sent; only messages that stand in the program are logged.
fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
    error!(place, message, "a task panicked; this is a bug in envd");
}
