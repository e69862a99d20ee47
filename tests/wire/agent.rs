//! An agent in this process with everything behind real sockets, as the command starts it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use envd::{
    config::{Address, Config},
    server::Server,
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};

use crate::{
    http1::{Exchange, Reply},
    stream::EventStream,
};

/// How long a test waits for something that has to happen; a failure limit only.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub const START: &str = "/process.Process/Start";
pub const CONNECT: &str = "/process.Process/Connect";

/// Everything that the process service answers to.
pub const PROCESS_UNARY: [&str; 5] = ["List", "Update", "SendInput", "SendSignal", "CloseStdin"];
pub const FILESYSTEM_UNARY: [&str; 8] =
    ["Stat", "MakeDir", "Move", "ListDir", "Remove", "CreateWatcher", "GetWatcherEvents", "RemoveWatcher"];

/// A running agent; its directory and its sockets go when it is dropped.
pub struct Agent {
    dir: tempfile::TempDir,
    pub agent: SocketAddr,
    pub code: SocketAddr,
    pub unix: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl Agent {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// An agent whose configuration `change` has the last word on.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let unix = dir.path().join("agent.sock");
        let work = dir.path().join("work");
        fs::create_dir(&work).unwrap();
        let any: Address = "tcp://127.0.0.1:0".parse().unwrap();
        let mut config = Config {
            agent_addresses: vec![any.clone(), Address::Unix(unix.clone())],
            code_addresses: vec![any],
            workdir: Some(work.to_str().unwrap().to_owned()),
            kernel_dirs: vec![dir.path().join("no-kernels")],
            is_not_fc: true,
            ..Config::default()
        };
        change(&mut config);
        let server = Server::bind(config).await.unwrap();
        let agent = tcp(server.agent_addresses());
        let code = tcp(server.code_addresses());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            server
                .run(async move {
                    let _ = stopped.await;
                })
                .await
                .unwrap();
        });
        Self { dir, agent, code, unix, stop: Some(stop), running: Some(running) }
    }

    /// The default working directory.
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// An absolute path in the working directory.
    pub fn path(&self, name: &str) -> String {
        self.work().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file in the working directory.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub async fn connect(&self) -> Exchange<TcpStream> {
        Exchange::new(TcpStream::connect(self.agent).await.unwrap())
    }

    pub async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        self.connect().await.send(method, target, headers, body.as_ref()).await
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], "").await
    }

    /// The same on the code port.
    pub async fn send_code(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Reply {
        let mut exchange = Exchange::new(TcpStream::connect(self.code).await.unwrap());
        exchange.send(method, target, headers, body.as_ref()).await
    }

    /// A unary call in JSON.
    pub async fn call(&self, path: &str, body: impl ToString) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub async fn filesystem(&self, method: &str, body: Value) -> Reply {
        self.call(&format!("/filesystem.Filesystem/{method}"), body).await
    }

    pub async fn process(&self, method: &str, body: Value) -> Reply {
        self.call(&format!("/process.Process/{method}"), body).await
    }

    /// A streaming call in JSON, with further headers.
    pub async fn stream(&self, path: &str, headers: &[(&str, &str)], body: impl ToString) -> EventStream {
        EventStream::open(self.agent, path, headers, &body.to_string()).await
    }

    /// Starts a shell script.
    pub async fn sh(&self, script: &str) -> EventStream {
        self.stream(START, &[], sh(script)).await
    }

    /// Fails the test where the agent does not answer any more.
    pub async fn assert_alive(&self) {
        assert_eq!(self.get("/health").await.status, 204);
        assert_eq!(self.send_code("GET", "/contexts", &[], "").await.status, 200);
    }

    /// Ends the agent and waits for it.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
        }
    }
}

fn tcp<'a>(addresses: impl Iterator<Item = &'a Address>) -> SocketAddr {
    let mut addresses = addresses.filter_map(|address| match address {
        Address::Tcp(address) => Some(*address),
        _ => None,
    });
    addresses.next().unwrap()
}

/// The Start request for a shell script without input.
pub fn sh(script: &str) -> Value {
    json!({ "process": { "cmd": "/bin/sh", "args": ["-c", script] }, "stdin": false })
}

pub fn by_pid(pid: u64) -> Value {
    json!({ "pid": pid })
}
