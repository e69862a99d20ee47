//! The agent's command: arguments → runtime → listen → serve → drain.

use std::{
    env,
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::anyhow;
use envd::{
    config::{self, Command, Config},
    server::Server,
    sys::blocks::Allocator,
    system::{blocking, logging},
};
use rustix::{fs::Mode, process::umask};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

/// A wrong command line (`EX_USAGE`, sysexits.h).
const USAGE: u8 = 64;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    let outcome = match config::parse(env::args_os().skip(1)) {
        Ok(Command::Serve(config)) => serve(*config),
        Ok(Command::Print(text)) => {
            io::stdout().write_all(text.as_bytes()).map_err(|error| anyhow!("cannot print: {error}"))
        }
        Err(error) => {
            complain(&error);
            return ExitCode::from(USAGE);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    avoid_empty_umask();
    logging::start(&config.logging);
    blocking::start().map_err(|error| anyhow!("cannot start threads: {error}"))?;
    let runtime = runtime::Builder::new_multi_thread()
        // Two keep a busy stream from delaying the rest; more than four only add memory.
        .worker_threads(thread::available_parallelism().map_or(2, usize::from).clamp(2, 4))
        // Nothing of ours blocks there (see `system::blocking`); resolving names and the like does.
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_name("envd-worker")
        .enable_all()
        .build()
        .map_err(|error| anyhow!("cannot start threads: {error}"))?;
    let outcome = runtime.block_on(async {
        let shutdown = shutdown_signal()?;
        Server::bind(config).await?.run(shutdown).await.map_err(anyhow::Error::from)
    });
    // Never waits for file work that hangs.
    runtime.shutdown_background();
    outcome
}

/// The first process of a machine starts with an empty umask, which all commands would inherit: what they make would
/// be writable for everybody. A umask that somebody has chosen stays.
fn avoid_empty_umask() {
    let inherited = umask(Mode::from_raw_mode(0o022));
    if !inherited.is_empty() {
        umask(inherited);
    }
}

/// Completes at the first SIGTERM or SIGINT from now on.
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| anyhow!("cannot catch SIGTERM: {error}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| anyhow!("cannot catch SIGINT: {error}"))?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// One line; where even standard error is gone, the exit status is all there is.
fn complain(error: &impl Display) {
    let _ = writeln!(io::stderr(), "envd: {error}");
}
