//! What is logged, and how: `--log debug`, `--log json`, `--log warn,envd::code=trace,json`.

use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The target of the few lines that say that the agent is up. They are printed at every level but `off`,
/// because people and test benches read the bound addresses from them.
pub const STARTUP_TARGET: &str = "envd::startup";

/// The crates of this repository. The rest logs from `warn` up only, unless it is named: some crates log
/// whole messages at `debug`, and those carry secrets.
const OWN_TARGETS: [&str; 2] = ["envd", "kernel_bridge"];

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct Logging {
    /// Which events are written.
    pub filter: Targets,
    /// How they are written.
    pub format: Format,
}

/// What is wrong with a log setting.
#[derive(Debug, Error)]
#[error(
    "'{0}' is no level, no module=level and no format; write off, error, warn, info, debug or trace, add \
     module=level for single modules, and json for JSON lines, such as info,envd::code=debug,json"
)]
pub struct LogError(String);

impl Default for Logging {
    fn default() -> Self {
        Self::new(false)
    }
}

impl Logging {
    /// Text at `info`, or at `debug` where `verbose`.
    pub fn new(verbose: bool) -> Self {
        Self { filter: targets(default_level(verbose)), format: Format::Text }
    }

    /// Reads a comma-separated list of a level, `module=level` pairs and `text` or `json`.
    ///
    /// # Errors
    /// [`LogError`] names the first item that is none of these.
    pub fn parse(text: &str, verbose: bool) -> Result<Self, LogError> {
        let mut level = default_level(verbose);
        let mut format = Format::Text;
        let mut modules: Vec<(&str, LevelFilter)> = Vec::new();
        for item in text.split(',').map(str::trim) {
            match (item, item.split_once('=')) {
                ("text", _) => format = Format::Text,
                ("json", _) => format = Format::Json,
                (_, Some((module, level))) if !module.is_empty() => modules.push((module, parse_level(level, item)?)),
                _ => level = parse_level(item, item)?,
            }
        }
        Ok(Self { filter: targets(level).with_targets(modules), format })
    }
}

fn default_level(verbose: bool) -> LevelFilter {
    if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO }
}

fn parse_level(text: &str, item: &str) -> Result<LevelFilter, LogError> {
    let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
    text.parse().ok().filter(|_| known).ok_or_else(|| LogError(item.to_owned()))
}

fn targets(level: LevelFilter) -> Targets {
    let startup = if level == LevelFilter::OFF { level } else { level.max(LevelFilter::INFO) };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(OWN_TARGETS.map(|target| (target, level)))
        .with_target(STARTUP_TARGET, startup)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_modules_and_formats_combine() {
        let logging = Logging::parse("warn,envd::code=trace,json", false).unwrap();
        assert_eq!(logging.format, Format::Json);
        assert!(logging.filter.would_enable("envd::code::x", &Level::TRACE));
        assert!(!logging.filter.would_enable("envd::server", &Level::INFO));
        assert!(logging.filter.would_enable(STARTUP_TARGET, &Level::INFO));
        let json = Logging::parse("json", false).unwrap();
        assert!(json.filter.would_enable("envd", &Level::INFO));
    }

    #[test]
    fn other_crates_stay_quiet_unless_named() {
        let verbose = Logging::new(true);
        assert!(verbose.filter.would_enable("kernel_bridge::wire", &Level::DEBUG));
        assert!(!verbose.filter.would_enable("h2::codec", &Level::INFO));
        let named = Logging::parse("h2=debug", false).unwrap();
        assert!(named.filter.would_enable("h2::codec", &Level::DEBUG));
    }

    #[test]
    fn off_is_silent() {
        let off = Logging::parse("off", false).unwrap();
        assert!(!off.filter.would_enable(STARTUP_TARGET, &Level::ERROR));
    }

    #[test]
    fn nonsense_is_named() {
        for odd in ["loud", "info,", "=info", "envd=loud", "3", ""] {
            assert!(Logging::parse(odd, false).is_err(), "{odd:?}");
        }
        assert!(Logging::parse("info,loud", false).unwrap_err().to_string().starts_with("'loud'"));
    }
}
