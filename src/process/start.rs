//! From a Start request to a listed process.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

use super::{
    Processes,
    environment::base_variables,
    error::ProcessError,
    input::Input,
    limit::Limit,
    output::{OutputLog, Subscription},
    pty::{self, Terminal, pty_size},
    reap::Child,
    resources,
    running::{Parts, Process, follow},
    source::{Channel, Source, watch},
    spawn::{Program, SpawnError, spawn},
};
use crate::{
    proto::{
        self,
        process::{ProcessConfig, StartRequest, pty::Size},
    },
    sys::spawn::Leads,
    system::{
        cgroup::Limits,
        identity::{Identity, User},
        path::resolve,
    },
};

/// A process with its descriptors on our side.
struct Started {
    child: Arc<Child>,
    input: Option<Arc<AsyncFd<OwnedFd>>>,
    sources: Vec<Source>,
    terminal: Option<Terminal>,
}

/// Starts what the request asks for, lists it and follows it. The subscription is older than the process. Blocking,
/// but needs a tokio runtime.
///
/// # Errors
/// [`ProcessError`]; nothing runs then.
pub(super) fn start(
    processes: &Processes,
    request: StartRequest,
    user: &User,
    deadline: Option<Instant>,
    limit: Option<Limit>,
) -> Result<(Arc<Process>, Subscription), ProcessError> {
    let StartRequest { process: config, pty, tag, stdin, resource_limits, control_group, .. } = request;
    let config = config.unwrap_or_default();
    let inner = &processes.inner;
    let workdir = inner.settings.default_workdir();
    let cwd = resolve(config.cwd.as_deref().unwrap_or_default(), user, workdir.as_deref())?;
    // Anything else that is wrong with it shows when the user enters it.
    if matches!(std::fs::metadata(&cwd), Err(error) if error.kind() == io::ErrorKind::NotFound) {
        return Err(ProcessError::NoWorkingDirectory(cwd));
    }
    let limits = resources::check(resource_limits)?;
    let mut variables = base_variables(user, &cwd, inner.settings.environment());
    variables.extend(config.envs.iter().map(|(name, value)| (name.into(), value.into())));
    let args: Vec<OsString> = config.args.iter().map(OsString::from).collect();

    let log = OutputLog::new(inner.memory.clone());
    let subscription = log.subscribe();
    // The time may have passed while the request waited for its turn.
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(ProcessError::DeadlineExceeded);
    }
    // The last step before the start, so that most failures leave the tree alone.
    let control_group = match control_group {
        Some(requested) => Some(Arc::new(inner.control_groups.create(&group_limits(&requested))?)),
        None => None,
    };
    let launch = |stdio: [BorrowedFd<'_>; 3], leads| {
        let program = Program {
            name: OsStr::new(&config.cmd),
            args: &args,
            variables: &variables,
            cwd: &cwd,
            user,
            stdio,
            leads,
            limits: &limits,
            control_group: control_group.as_ref(),
            must_exist: false,
        };
        spawn(&program, &inner.reaper)
    };
    let started = match pty {
        Some(pty) => start_in_terminal(pty.size, user, &inner.identity, launch).map_err(|source| {
            let size = pty_size(pty.size);
            let command = command_line(&config);
            ProcessError::StartTerminal { command, dir: cwd.clone(), cols: size.cols, rows: size.rows, source }
        }),
        None => start_with_pipes(stdin.unwrap_or(true), user, launch)
            .map_err(|source| ProcessError::Start { command: command_line(&config), source }),
    }?;

    let Started { child, input, sources, terminal } = started;
    let input = Input::new(input, inner.waiting_input.clone());
    let serial = inner.table.serial();
    let process = Arc::new(Process::new(Parts { serial, config, tag, log, child, input, terminal }));
    inner.table.insert(process.clone());
    tracing::debug!(pid = process.pid(), user = user.name, "process started");
    tokio::spawn(follow(process.clone(), sources, limit, inner.table.clone()));
    Ok((process, subscription))
}

/// Zero is no limit.
fn group_limits(requested: &proto::process::ControlGroup) -> Limits {
    let limit = |number| Some(number).filter(|number| *number != 0);
    Limits {
        memory_bytes: limit(requested.memory_max_bytes),
        pids: limit(requested.pids_max),
        cpu_millis: limit(requested.cpu_max_millis),
    }
}

fn start_with_pipes(
    stdin: bool,
    user: &User,
    spawn: impl FnOnce([BorrowedFd<'_>; 3], Leads) -> Result<Arc<Child>, SpawnError>,
) -> Result<Started, SpawnError> {
    let pipe = || {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| SpawnError::Pipe(error.into()))?;
        // A pipe belongs to who made it, and `/dev/stderr` opens it by name: without this only root can.
        if user.uid != 0 && rustix::process::geteuid().is_root() {
            let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
            if let Err(error) = rustix::fs::fchown(&writer, Some(uid), Some(gid)) {
                tracing::debug!(%error, "cannot give a pipe to its user");
            }
        }
        Ok((reader, writer))
    };
    let (stdout, child_stdout) = pipe()?;
    let (stderr, child_stderr) = pipe()?;
    let (input, child_stdin) = if stdin {
        let (child_stdin, input) = pipe()?;
        (Some(input), child_stdin)
    } else {
        (None, OwnedFd::from(open_null()?))
    };
    // Everything that can fail on our side comes before there is a child to lose.
    let input =
        input.map(|input| watch(input, Interest::WRITABLE)).transpose().map_err(SpawnError::Pipe)?.map(Arc::new);
    let source = |channel, fd| {
        let fd = watch(fd, Interest::READABLE).map_err(SpawnError::Pipe)?;
        Ok(Source::new(channel, Arc::new(fd)))
    };
    let sources = vec![source(Channel::Stdout, stdout)?, source(Channel::Stderr, stderr)?];
    let child = spawn([child_stdin.as_fd(), child_stdout.as_fd(), child_stderr.as_fd()], Leads::Group)?;
    Ok(Started { child, input, sources, terminal: None })
}

fn start_in_terminal(
    size: Option<Size>,
    user: &User,
    identity: &Identity,
    spawn: impl FnOnce([BorrowedFd<'_>; 3], Leads) -> Result<Arc<Child>, SpawnError>,
) -> Result<Started, SpawnError> {
    // devpts may be mounted without a group (mount(8), `gid=`), and only root may choose one.
    let group = if identity.is_bound() { None } else { identity.group_id(pty::GROUP) };
    let pty::Pair { terminal, master, slave } = pty::open(size, user, group).map_err(SpawnError::Terminal)?;
    let master = watch(master, Interest::READABLE | Interest::WRITABLE).map_err(SpawnError::Pipe)?;
    let master = Arc::new(master);
    let child = spawn([slave.as_fd(), slave.as_fd(), slave.as_fd()], Leads::Terminal)?;
    let sources = vec![Source::new(Channel::Terminal, master.clone())];
    Ok(Started { child, input: Some(master), sources, terminal: Some(terminal) })
}

/// `/dev/null`, or a pipe without a writer where an image lacks it: both read as end of file.
pub(super) fn open_null() -> Result<File, SpawnError> {
    File::open("/dev/null").or_else(|_| {
        let (empty, _writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| SpawnError::Pipe(error.into()))?;
        Ok(File::from(empty))
    })
}

fn command_line(config: &ProcessConfig) -> String {
    let words = std::iter::once(&config.cmd).chain(&config.args);
    words.map(String::as_str).collect::<Vec<_>>().join(" ")
}
