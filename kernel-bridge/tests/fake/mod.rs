//! A kernel in this process that does what real ones do once in a thousand times. What a cell does is named
//! by its code.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, future, io,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use kernel_bridge::{KernelCommand, KernelProcess, Spawner, spawner::BoxFuture};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::sleep,
};
use zeromq::{PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

const DELIMITER: &[u8] = b"<IDS|MSG>";
/// Whoever hears this status panics.
pub(crate) const POISON: &str = "poison";
const PAUSE: Duration = Duration::from_millis(100);

/// What the kernels of a test have seen, in order: `"<number of the kernel>: <what>"`.
#[derive(Default)]
pub(crate) struct Diary {
    entries: Mutex<Vec<String>>,
    changed: Notify,
    kernels: AtomicU32,
}

impl Diary {
    fn note(&self, kernel: u32, what: &str) {
        self.entries.lock().expect("diary").push(format!("{kernel}: {what}"));
        self.changed.notify_waiters();
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.entries.lock().expect("diary").clone()
    }

    /// Waits until an entry is there.
    pub(crate) async fn wait_for(&self, entry: &str) {
        loop {
            let changed = self.changed.notified();
            if self.entries().iter().any(|known| known == entry) {
                return;
            }
            changed.await;
        }
    }
}

#[derive(Default)]
pub(crate) struct FakeSpawner {
    pub diary: Arc<Diary>,
    /// These kernels cannot be started.
    pub broken: Range<u32>,
    pub processes: Mutex<Vec<watch::Sender<Option<String>>>>,
}

impl Spawner for FakeSpawner {
    fn spawn(&self, command: KernelCommand) -> BoxFuture<'_, io::Result<Box<dyn KernelProcess>>> {
        Box::pin(async move {
            let number = self.diary.kernels.fetch_add(1, Ordering::SeqCst) + 1;
            if self.broken.contains(&number) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            self.diary.note(number, &format!("cwd {}", command.cwd.display()));
            let env: BTreeMap<_, _> = command.env.iter().cloned().collect();
            if let Some(value) = env.get(OsStr::new("GREETING")) {
                self.diary.note(number, &format!("GREETING={}", value.display()));
            }
            if command.argv.get(1).is_some_and(|argument| argument == "dies-at-start") {
                fs::write(&command.log, "no module named fake\n")?;
                let process = Process::new(number, Arc::clone(&self.diary), None);
                process.exit.send_replace(Some("exit status 1".to_owned()));
                return Ok(Box::new(process) as Box<dyn KernelProcess>);
            }
            let file = command.argv.last().expect("connection file");
            let connection: Value = serde_json::from_slice(&fs::read(file)?)?;
            let process = Process::new(number, Arc::clone(&self.diary), Some(&connection));
            self.processes.lock().expect("processes").push(process.exit.clone());
            Ok(Box::new(process) as Box<dyn KernelProcess>)
        })
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        path.metadata().map(drop)
    }
}

struct Process {
    number: u32,
    diary: Arc<Diary>,
    exit: watch::Sender<Option<String>>,
    sigint: Arc<Notify>,
    task: Option<JoinHandle<()>>,
}

impl Process {
    fn new(number: u32, diary: Arc<Diary>, connection: Option<&Value>) -> Self {
        let exit = watch::Sender::new(None);
        let sigint = Arc::new(Notify::new());
        let task = connection.map(|connection| {
            let kernel = Kernel::new(number, Arc::clone(&diary), connection.clone(), exit.clone(), Arc::clone(&sigint));
            tokio::spawn(async move { kernel.await.run().await })
        });
        Self { number, diary, exit, sigint, task }
    }
}

impl KernelProcess for Process {
    fn pid(&self) -> u32 {
        self.number
    }

    fn exited(&self) -> BoxFuture<'static, String> {
        let mut exit = self.exit.subscribe();
        Box::pin(async move {
            let status = exit.wait_for(Option::is_some).await.expect("sender lives in the process");
            assert_ne!(status.as_deref(), Some(POISON), "as the test asked for");
            status.clone().expect("status")
        })
    }

    fn signal_group(&self, signal: i32) -> io::Result<()> {
        if self.exit.borrow().is_some() {
            return Ok(());
        }
        self.diary.note(self.number, &format!("signal {signal}"));
        if signal == 2 {
            self.sigint.notify_one();
            return Ok(());
        }
        if let Some(task) = &self.task {
            task.abort();
        }
        self.exit.send_replace(Some(format!("signal {signal}")));
        Ok(())
    }
}

struct Kernel {
    number: u32,
    diary: Arc<Diary>,
    exit: watch::Sender<Option<String>>,
    sigint: Arc<Notify>,
    key: String,
    shell: RouterSocket,
    control: RouterSocket,
    iopub: PubSocket,
    count: i64,
    refused: bool,
}

struct Request {
    identity: Bytes,
    header: Value,
    content: Value,
}

impl Kernel {
    async fn new(
        number: u32,
        diary: Arc<Diary>,
        connection: Value,
        exit: watch::Sender<Option<String>>,
        sigint: Arc<Notify>,
    ) -> Self {
        let endpoint = |port: &str| format!("ipc://{}-{}", connection["ip"].as_str().expect("ip"), connection[port]);
        let (mut shell, mut control, mut iopub) = (RouterSocket::new(), RouterSocket::new(), PubSocket::new());
        shell.bind(&endpoint("shell_port")).await.expect("shell");
        control.bind(&endpoint("control_port")).await.expect("control");
        iopub.bind(&endpoint("iopub_port")).await.expect("iopub");
        let key = connection["key"].as_str().expect("key").to_owned();
        Self { number, diary, exit, sigint, key, shell, control, iopub, count: 0, refused: false }
    }

    async fn run(mut self) {
        loop {
            let multipart = tokio::select! {
                shell = self.shell.recv() => shell.expect("shell"),
                control = self.control.recv() => {
                    if self.control_request(control.expect("control")) {
                        return;
                    }
                    continue;
                }
            };
            let request = parse(multipart);
            if request.header["msg_type"] == "kernel_info_request" {
                self.welcome().await;
                self.status(&request, "busy").await;
                self.reply(&request, "kernel_info_reply", json!({"status": "ok"})).await;
                self.status(&request, "idle").await;
            } else if self.execute(&request).await {
                return;
            }
        }
    }

    /// Returns whether the kernel is gone.
    fn control_request(&self, multipart: ZmqMessage) -> bool {
        let kind = parse(multipart).header["msg_type"].as_str().expect("msg_type").to_owned();
        self.diary.note(self.number, &kind);
        if kind == "shutdown_request" {
            self.exit.send_replace(Some("exit status 0".to_owned()));
        }
        kind == "shutdown_request"
    }

    /// Returns whether the kernel is gone.
    async fn execute(&mut self, request: &Request) -> bool {
        let code = request.content["code"].as_str().expect("code").to_owned();
        let silent = request.content["silent"] == true;
        self.diary.note(self.number, &if silent { format!("silent {code}") } else { code.clone() });
        self.status(request, "busy").await;
        if code == "aborted always" || (code == "aborted once" && !std::mem::replace(&mut self.refused, true)) {
            self.reply(request, "execute_reply", json!({"status": "aborted"})).await;
            self.status(request, "idle").await;
            return false;
        }
        if !silent {
            self.count += 1;
            self.publish(request, "execute_input", json!({"code": code, "execution_count": self.count})).await;
        }
        let ok = json!({"status": "ok", "execution_count": self.count, "payload": []});
        match code.as_str() {
            "idle before reply" => {
                self.status(request, "idle").await;
                self.reply(request, "execute_reply", ok).await;
                return false;
            }
            "no idle" => {
                self.stream(request, "out").await;
                self.reply(request, "execute_reply", ok).await;
                return false;
            }
            "no reply" => {
                self.status(request, "idle").await;
                return false;
            }
            "error in reply" => {
                let error = json!({"status": "error", "ename": "", "evalue": 1, "traceback": null});
                self.reply(request, "execute_reply", error).await;
                self.status(request, "idle").await;
                return false;
            }
            "error twice" => {
                let error = json!({"status": "error", "ename": "E", "evalue": "v", "traceback": ["t"]});
                self.reply(request, "execute_reply", error.clone()).await;
                self.publish(request, "error", error).await;
                self.stream(request, "later").await;
                self.status(request, "idle").await;
                return false;
            }
            "die" => {
                self.exit.send_replace(Some("signal: killed".to_owned()));
                return true;
            }
            "hang up, speak, die" => {
                self.shell = RouterSocket::new();
                // The pauses give the other side time to go wrong; it must be right without them, too.
                sleep(PAUSE).await;
                self.stream(request, "last words").await;
                sleep(PAUSE).await;
                self.exit.send_replace(Some("exit status 1".to_owned()));
                // A kernel that is dropped would not send what it has queued.
                future::pending().await
            }
            "hang up" => {
                // The sockets close, the process stays.
                return true;
            }
            "exit" => {
                let payload = json!([{"source": "ask_exit", "keepkernel": false}]);
                self.reply(request, "execute_reply", json!({"status": "ok", "payload": payload})).await;
                self.status(request, "idle").await;
                self.exit.send_replace(Some("exit status 0".to_owned()));
                return false;
            }
            "invalid utf-8" => {
                let content = b"{\"name\":\"stdout\",\"text\":\"a\xffb\"}".to_vec();
                self.send_iopub(Some("stream"), "stream", &request.header, content.into(), &self.key.clone()).await;
            }
            "list mime" => {
                let data = json!({"text/plain": ["a\n", "b"], "application/json": [1]});
                self.publish(request, "execute_result", json!({"data": data})).await;
            }
            "foreign" => {
                let parent = json!({"msg_id": "somebody-else"});
                for (kind, parent) in [("stream", &parent), ("status", &parent), ("stream", &json!({}))] {
                    let content = json!({"name": "stdout", "text": "foreign", "execution_state": "idle"});
                    let key = self.key.clone();
                    self.send_iopub(None, kind, parent, content.to_string().into(), &key).await;
                }
                for kind in ["comm_open", "unheard_of", "clear_output", "update_display_data"] {
                    self.publish(request, kind, json!({"data": {}})).await;
                }
                self.stream(request, "own").await;
            }
            "forged" => {
                let content = json!({"name": "stdout", "text": "forged"}).to_string();
                self.send_iopub(None, "stream", &request.header, content.into(), "another key").await;
                self.stream(request, "own").await;
            }
            "sleep" | "stubborn" | "deaf" => {
                let interrupts = match code.as_str() {
                    "sleep" => 1,
                    "stubborn" => 2,
                    _ => u32::MAX,
                };
                for _ in 0..interrupts {
                    self.interrupted().await;
                }
                let error = json!({"ename": "KeyboardInterrupt", "evalue": "", "traceback": []});
                self.publish(request, "error", error).await;
            }
            _ if silent => {
                if code.contains("enter") && code.contains("eyJCQUQiOiIxIn0=") {
                    let error = json!({"status": "error", "ename": "ValueError", "evalue": "bad"});
                    self.reply(request, "execute_reply", error).await;
                    self.status(request, "idle").await;
                    return false;
                }
            }
            _ => self.stream(request, &code).await,
        }
        self.reply(request, "execute_reply", ok).await;
        self.status(request, "idle").await;
        false
    }

    async fn interrupted(&mut self) {
        tokio::select! {
            () = self.sigint.notified() => {}
            control = self.control.recv() => drop(self.control_request(control.expect("control"))),
        }
    }

    async fn welcome(&mut self) {
        let key = self.key.clone();
        let content = json!({"subscription": ""}).to_string();
        self.send_iopub(None, "iopub_welcome", &json!({}), content.into(), &key).await;
    }

    async fn status(&mut self, request: &Request, state: &str) {
        self.publish(request, "status", json!({"execution_state": state})).await;
    }

    async fn stream(&mut self, request: &Request, text: &str) {
        self.publish(request, "stream", json!({"name": "stdout", "text": text})).await;
    }

    async fn publish(&mut self, request: &Request, kind: &str, content: Value) {
        let key = self.key.clone();
        self.send_iopub(Some(kind), kind, &request.header, content.to_string().into(), &key).await;
    }

    async fn send_iopub(&mut self, topic: Option<&str>, kind: &str, parent: &Value, content: Bytes, key: &str) {
        let mut frames = frames(kind, parent, content, key);
        if let Some(topic) = topic {
            frames.insert(0, Bytes::from(format!("kernel.{topic}")));
            frames.push(Bytes::from_static(b"\x00\xff buffer"));
        }
        self.iopub.send(ZmqMessage::try_from(frames).expect("frames")).await.expect("iopub");
    }

    async fn reply(&mut self, request: &Request, kind: &str, content: Value) {
        let mut frames = frames(kind, &request.header, content.to_string().into(), &self.key);
        frames.insert(0, request.identity.clone());
        self.shell.send(ZmqMessage::try_from(frames).expect("frames")).await.expect("shell");
    }
}

fn parse(multipart: ZmqMessage) -> Request {
    let frames = multipart.into_vec();
    let delimiter = frames.iter().position(|frame| frame.as_ref() == DELIMITER).expect("delimiter");
    let json = |index: usize| serde_json::from_slice(&frames[delimiter + index]).expect("json");
    Request { identity: frames[0].clone(), header: json(2), content: json(5) }
}

fn frames(kind: &str, parent: &Value, content: Bytes, key: &str) -> Vec<Bytes> {
    let header = json!({"msg_type": kind, "msg_id": "kernel", "date": "2026-11-20T20:02:55.100736Z"});
    let signed = [header.to_string().into(), parent.to_string().into(), Bytes::from_static(b"{}"), content];
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key will do");
    signed.iter().for_each(|frame: &Bytes| mac.update(frame));
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut frames = vec![Bytes::from_static(DELIMITER), Bytes::from(signature)];
    frames.extend(signed);
    frames
}
