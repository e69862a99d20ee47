//! An agent of the bench's own, without kernels, on free ports of 127.0.0.1.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long anything may take before the bench gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A running agent, ended on drop.
pub(crate) struct Agent {
    /// The port of its API.
    pub(crate) port: u16,
    child: Child,
    _kernels: EmptyFolder,
}

impl Agent {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Self {
        let kernels = EmptyFolder::create();
        let port = free_port();
        let child = quiet(&mut command(port, kernels.path())).spawn().unwrap();
        let agent = Self { port, child, _kernels: kernels };
        first_answer(port, Instant::now());
        agent
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder without kernels.
pub(crate) struct EmptyFolder(PathBuf);

impl EmptyFolder {
    /// Makes it.
    pub(crate) fn create() -> Self {
        let path = env::temp_dir().join(format!("envd-bench-kernels-{}", std::process::id()));
        let _ = fs::create_dir(&path);
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for EmptyFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The command of an agent that serves the current user.
pub(crate) fn command(port: u16, kernels: &Path) -> Command {
    let mut command = Command::new(program("ENVD_BINARY"));
    command.args(["--listen", &format!("tcp://127.0.0.1:{port}")]);
    command.args(["--code-listen", &format!("tcp://127.0.0.1:{}", free_port())]);
    command.args(["--user", &user(), "--kernel-path"]).arg(kernels);
    command
}

/// Who runs the bench, and so whom its agent serves.
pub(crate) fn user() -> String {
    env::var("USER").unwrap_or_else(|_| "root".to_owned())
}

/// The command without standard streams.
pub(crate) fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// Asks `/health` until somebody answers; the pause is far below what is measured.
pub(crate) fn first_answer(port: u16, began: Instant) -> Duration {
    loop {
        assert!(began.elapsed() < LIMIT, "no answer on port {port} within {LIMIT:?}");
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let asked = stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut answer = [0; 64];
            if asked.is_ok() && stream.read(&mut answer).is_ok_and(|count| count > 0) {
                assert!(answer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer));
                return began.elapsed();
            }
        }
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// Where a program of the benches is, from the variable that `benches/run` sets.
pub(crate) fn program(variable: &str) -> String {
    env::var(variable).unwrap()
}
