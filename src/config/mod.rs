//! The command line as one checked struct.
//!
//! Nothing is opened or looked up here: [`parse`] only decides what was asked for, and says in one line what to
//! do when it was asked for wrongly. Flags are written as in Go programs (one or two dashes, `-name value` or
//! `-name=value`), because that is how sandbox platforms call their agent.

mod address;
mod flags;
mod help;
mod log;

use std::{ffi::OsString, path::PathBuf};

use thiserror::Error;

use self::flags::{Argument, Arguments};
pub use self::{
    address::{Address, AddressError},
    log::{Format, LogError, Logging, STARTUP_TARGET},
};
use crate::system::{cgroup::DEFAULT_ROOT, settings::Environment};

/// The level of the sandbox agent interface that this agent serves, as platforms compare it.
pub const INTERFACE_VERSION: &str = "0.6.13";

/// The port of the agent interface where none is given.
pub const AGENT_PORT: u16 = 49_983;

/// The port of the code cell interface where none is given.
pub const CODE_PORT: u16 = 49_999;

/// Where Jupyter kernels are looked for where no `--kernel-path` is given, first match first.
pub const KERNEL_DIRS: [&str; 2] = ["/usr/local/share/jupyter/kernels", "/usr/share/jupyter/kernels"];

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the agent.
    Serve(Box<Config>),
    /// Print this text on standard output and end.
    Print(String),
}

/// Everything that the command line can set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the agent interface listens; never empty.
    pub agent_addresses: Vec<Address>,
    /// Where the code cell interface listens; never empty.
    pub code_addresses: Vec<Address>,
    /// The user for requests that name none. `None`: root, or the user the agent runs as.
    pub user: Option<String>,
    /// The directory that stands for an empty path.
    pub workdir: Option<String>,
    /// The first environment of every process and code cell.
    pub environment: Environment,
    /// Directories with kernelspecs, first match first.
    pub kernel_dirs: Vec<PathBuf>,
    /// What is logged, and how.
    pub logging: Logging,
    /// Below which directory control groups are made; `None`: they are switched off.
    pub cgroup_root: Option<PathBuf>,
    /// Whether the agent runs elsewhere than in a Firecracker microVM, so that the clock and the metadata
    /// service are somebody else's.
    pub is_not_fc: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent_addresses: vec![Address::any(AGENT_PORT)],
            code_addresses: vec![Address::any(CODE_PORT)],
            user: None,
            workdir: None,
            environment: Environment::new(),
            kernel_dirs: KERNEL_DIRS.map(PathBuf::from).into(),
            logging: Logging::default(),
            cgroup_root: Some(DEFAULT_ROOT.into()),
            is_not_fc: false,
        }
    }
}

/// What is wrong with the command line, and what to do about it.
#[derive(Debug, Error)]
pub enum UsageError {
    /// No such flag.
    #[error("unknown option '{0}'; 'envd --help' lists all options")]
    UnknownFlag(String),
    /// A word that is no flag.
    #[error(
        "unexpected word '{0}'; the only command is 'envd serve', and options start with a dash ('envd --help' lists them)"
    )]
    UnexpectedWord(String),
    /// A flag at the end of the line, or followed by nothing.
    #[error("option --{flag} needs a value; write --{flag} {expected}")]
    MissingValue {
        /// Which one.
        flag: &'static str,
        /// How a value looks.
        expected: &'static str,
    },
    /// A value that does not fit.
    #[error("option --{flag} does not accept '{value}'; write --{flag} {expected}")]
    BadValue {
        /// Which one.
        flag: &'static str,
        /// The value as given.
        value: String,
        /// How a value looks.
        expected: &'static str,
    },
    /// A listener address that does not fit.
    #[error("option --{flag} does not accept '{value}': {source}")]
    BadAddress {
        /// Which one.
        flag: &'static str,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        source: AddressError,
    },
    /// A log setting that does not fit.
    #[error("option --log does not accept '{value}': {source}")]
    BadLog {
        /// The value as given.
        value: String,
        /// What is wrong with it.
        source: LogError,
    },
    /// Bytes that are no UTF-8.
    #[error("argument '{0}' is not valid UTF-8; write it in UTF-8")]
    NotUtf8(String),
}

/// Checks the arguments that follow the program's name.
///
/// # Errors
/// [`UsageError`] for the first argument that is not understood.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut arguments = Arguments::new(arguments)?;
    let mut config = Config::default();
    let (mut agent, mut code, mut kernels) = (Vec::new(), Vec::new(), Vec::new());
    let (mut help, mut version, mut commit, mut verbose, mut log) = (false, false, false, false, None);
    let (mut cgroup_root, mut no_cgroups) = (PathBuf::from(DEFAULT_ROOT), false);
    let mut first = true;
    while let Some(argument) = arguments.next() {
        let flag = match argument {
            Argument::Word(word) if first && word == "serve" => {
                first = false;
                continue;
            }
            Argument::Word(word) => return Err(UsageError::UnexpectedWord(word)),
            Argument::Flag(flag) => flag,
        };
        first = false;
        match flag.name() {
            "listen" => agent.push(arguments.address(flag, "listen")?),
            "code-listen" => code.push(arguments.address(flag, "code-listen")?),
            "port" => {
                let text = arguments.value(flag, "port", "NUMBER, such as 49983")?;
                let port = text.parse().map_err(|_| UsageError::BadValue {
                    flag: "port",
                    value: text,
                    expected: "NUMBER, 0 to 65535",
                })?;
                agent.push(Address::any(port));
            }
            "user" => config.user = Some(arguments.filled(flag, "user", "NAME, such as user")?),
            "workdir" => config.workdir = Some(arguments.filled(flag, "workdir", "DIR, such as /home/user")?),
            "env" => {
                let (name, value) = arguments.variable(flag)?;
                config.environment.insert(name, value);
            }
            "kernel-path" => {
                let dir = arguments.filled(flag, "kernel-path", "DIR, such as /usr/share/jupyter/kernels")?;
                kernels.push(PathBuf::from(dir));
            }
            "log" => {
                let value = arguments.filled(flag, "log", "LEVEL[,json], such as debug,json")?;
                log = Some(value);
            }
            "cgroup-root" => cgroup_root = arguments.filled(flag, "cgroup-root", "DIR, such as /sys/fs/cgroup")?.into(),
            "no-cgroups" => no_cgroups = flag.switch("no-cgroups")?,
            "isnotfc" => config.is_not_fc = flag.switch("isnotfc")?,
            "verbose" => verbose = flag.switch("verbose")?,
            "version" => version = flag.switch("version")?,
            "commit" => commit = flag.switch("commit")?,
            "help" | "h" => help = flag.switch("help")?,
            _ => return Err(UsageError::UnknownFlag(flag.written())),
        }
    }
    if help {
        return Ok(Command::Print(help::page()));
    }
    if version {
        return Ok(Command::Print(version_text(verbose)));
    }
    if commit {
        return Ok(Command::Print(format!("{}\n", build_commit())));
    }
    config.logging = match log {
        Some(value) => Logging::parse(&value, verbose).map_err(|source| UsageError::BadLog { value, source })?,
        None => Logging::new(verbose),
    };
    for (given, default) in [(agent, &mut config.agent_addresses), (code, &mut config.code_addresses)] {
        if !given.is_empty() {
            *default = given;
        }
    }
    config.cgroup_root = (!no_cgroups).then_some(cgroup_root);
    if !kernels.is_empty() {
        config.kernel_dirs = kernels;
    }
    Ok(Command::Serve(Box::new(config)))
}

/// Platforms run `envd -version` on the host and take the whole output for the version, so that our own one is
/// told only to those who ask twice.
fn version_text(verbose: bool) -> String {
    if verbose {
        format!("{INTERFACE_VERSION}\nenvd {} (commit {})\n", env!("CARGO_PKG_VERSION"), build_commit())
    } else {
        format!("{INTERFACE_VERSION}\n")
    }
}

/// The commit that the binary was built from, where the build said so.
fn build_commit() -> &'static str {
    option_env!("ENVD_COMMIT").unwrap_or("unknown")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
