//! The command itself, used hard: afterwards it holds what it held before.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    agent::{PATIENCE, START, sh},
    http1::{Exchange, request},
    stream::{EventStream, frame},
};

struct Process {
    child: Child,
    agent: SocketAddr,
    code: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        // The polite way, so that it takes its runtime directory along.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Process {
    fn start() -> Self {
        let arguments = "-isnotfc --workdir /tmp --kernel-path /nonexistent --log error --listen tcp://127.0.0.1:0 \
                         --code-listen tcp://127.0.0.1:0";
        let mut command = Command::new(env!("CARGO_BIN_EXE_envd"));
        let mut child = command.args(arguments.split_whitespace()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = || -> SocketAddr {
            let line = lines.next().unwrap().unwrap();
            let (_, rest) = line.split_once("listening on tcp://").unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        };
        let (agent, code) = (address(), address());
        // Drained so that the child never blocks on its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, agent, code }
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Watches of inotify(7), over all instances.
    fn watches(&self) -> usize {
        let dir = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())).unwrap();
        let texts = dir.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
        texts.map(|text| text.lines().filter(|line| line.starts_with("inotify ")).count()).sum()
    }

    fn children(&self) -> String {
        let pid = self.child.id();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
        lists.collect::<String>().trim().to_owned()
    }

    async fn abuse(&self, round: u32) {
        let connect = [("content-type", "application/connect+json")];
        // To the end.
        EventStream::open(self.agent, START, &[], &sh("echo hi; echo err >&2").to_string()).await.all().await;
        let pty = json!({ "process": { "cmd": "/bin/true" }, "pty": {} }).to_string();
        EventStream::open(self.agent, START, &[], &pty).await.all().await;
        // Left alone before, at and after their start.
        for drop_after in 0..2 {
            let mut stream = EventStream::open(self.agent, START, &[], &sh("sleep 0.05").to_string()).await;
            if drop_after > 0 {
                stream.started().await;
            }
        }
        let start = request("POST", START, &connect, &frame(0, sh("sleep 0.05").to_string()));
        TcpStream::connect(self.agent).await.unwrap().write_all(&start).await.unwrap();
        let mut limited =
            EventStream::open(self.agent, START, &[("connect-timeout-ms", "50")], &sh("exec sleep 600").to_string())
                .await;
        // Its start, or already its end.
        let _ = limited.message().await;
        drop(limited);
        // Watches and what comes through them.
        let watch = r#"{"path":"/tmp"}"#;
        let mut stream = EventStream::open(self.agent, "/filesystem.Filesystem/WatchDir", &[], watch).await;
        assert!(stream.message().await.is_some());
        drop(stream);
        // Half an upload, half a request, nonsense.
        let path = format!("/files?path=/tmp/envd-wire-leak-{}-{round}", self.child.id());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: 99\r\n\r\nhalf"
        );
        for bytes in
            [head.as_bytes(), b"POST /init HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{", b"\0\0\xff\r\n\r\n"]
        {
            TcpStream::connect(self.agent).await.unwrap().write_all(bytes).await.unwrap();
            TcpStream::connect(self.code).await.unwrap().write_all(bytes).await.unwrap();
        }
        // A download that is not read.
        let get = b"GET /files?path=/proc/self/exe HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut exchange = Exchange::new(TcpStream::connect(self.agent).await.unwrap());
        exchange.write(get).await;
        assert_eq!(exchange.head().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_use_leaves_nothing_behind() {
    let process = Process::start();
    // What is opened once and kept.
    process.abuse(0).await;
    settle(&process, usize::MAX).await;
    let before = process.descriptors();
    for round in 1..40 {
        process.abuse(round).await;
    }
    settle(&process, before).await;
}

/// Waits until all that was begun has ended: no children, no watches, no more descriptors than given.
async fn settle(process: &Process, most: usize) {
    let started = Instant::now();
    loop {
        let (children, watches, descriptors) = (process.children(), process.watches(), process.descriptors());
        // Readings while connections close may be high; a leak stays.
        if children.is_empty() && watches == 0 && descriptors <= most {
            if most == usize::MAX {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            return;
        }
        assert!(
            started.elapsed() < PATIENCE / 4,
            "{children:?} live, {watches} watches, {descriptors} descriptors instead of {most}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
