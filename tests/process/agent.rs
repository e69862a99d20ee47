//! A process service for one test, and the requests that tests send.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use envd::{
    connect::Deadline,
    process::{ProcessService, Processes},
    proto::process::{
        process_event::{DataEvent, EndEvent, Event, data_event::Output},
        process_server::Process,
        *,
    },
    system::{caller::RequestUser, cgroup::ControlGroups, identity::Identity, settings::Settings},
};
use futures_util::{Stream, StreamExt};
use prost::Message as _;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::{Code, Request, Status};

/// How long a test waits for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Agent {
    pub(crate) service: ProcessService,
    pub(crate) processes: Processes,
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
}

/// A stream of events, of Start or of Connect. As a transport does that has passed an event on, it asks for the next
/// one before it is dropped: what the test saw is received.
pub(crate) struct Events(Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>);

/// Everything that a stream told until it ended.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) pid: u32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) pty: Vec<u8>,
    pub(crate) keepalives: usize,
    pub(crate) end: Option<EndEvent>,
    pub(crate) error: Option<Status>,
}

impl Agent {
    pub(crate) fn new() -> Self {
        let identity = Identity::system();
        // Not everybody who runs tests has a home.
        let settings = Settings::new(identity.own().name.clone(), Some("/".to_owned()), [].into());
        let processes = Processes::start(identity.clone(), settings.clone()).unwrap();
        Self::of(processes, settings, identity)
    }

    /// An agent with control groups below this directory, or without any.
    pub(crate) fn with_groups(root: Option<PathBuf>) -> Self {
        let Self { settings, identity, .. } = Self::new();
        let groups = ControlGroups::below(root);
        let processes = Processes::with_control_groups(identity.clone(), settings.clone(), groups).unwrap();
        Self::of(processes, settings, identity)
    }

    fn of(processes: Processes, settings: Settings, identity: Identity) -> Self {
        Self { service: ProcessService::new(processes.clone()), processes, settings, identity }
    }

    pub(crate) async fn start(&self, request: StartRequest) -> Result<Events, Status> {
        self.start_request(Request::new(request)).await
    }

    pub(crate) async fn start_within(&self, request: StartRequest, limit: Duration) -> Result<Events, Status> {
        let mut request = Request::new(request);
        request.extensions_mut().insert(Deadline { at: Instant::now() + limit, limit });
        self.start_request(request).await
    }

    pub(crate) async fn start_as(&self, request: StartRequest, user: &str) -> Result<Events, Status> {
        let mut request = Request::new(request);
        request.extensions_mut().insert(RequestUser(self.identity.user(user).unwrap()));
        self.start_request(request).await
    }

    pub(crate) async fn start_request(&self, request: Request<StartRequest>) -> Result<Events, Status> {
        let stream = self.service.start(request).await?.into_inner();
        Ok(Events(Box::pin(stream.map(|item| Ok(item?.event.unwrap().event.unwrap())))))
    }

    /// Runs a shell script to its end.
    pub(crate) async fn sh(&self, script: &str) -> Told {
        self.start(sh(script)).await.unwrap().all().await
    }

    pub(crate) async fn connect(&self, selector: ProcessSelector) -> Result<Events, Status> {
        self.connect_request(ConnectRequest { process: Some(selector), ..Default::default() }).await
    }

    pub(crate) async fn connect_request(&self, request: ConnectRequest) -> Result<Events, Status> {
        let stream = self.service.connect(Request::new(request)).await?.into_inner();
        Ok(Events(Box::pin(stream.map(|item| Ok(item?.event.unwrap().event.unwrap())))))
    }

    pub(crate) async fn list(&self) -> Vec<ProcessInfo> {
        self.service.list(Request::new(ListRequest::default())).await.unwrap().into_inner().processes
    }

    pub(crate) async fn signal(&self, pid: u32, signal: i32) -> Result<(), Status> {
        let request = SendSignalRequest { process: Some(by_pid(pid)), signal, ..Default::default() };
        self.service.send_signal(Request::new(request)).await.map(|_| ())
    }

    pub(crate) async fn stdin(&self, pid: u32, bytes: impl Into<bytes::Bytes>) -> Result<(), Status> {
        self.input(pid, process_input::Input::Stdin(bytes.into())).await
    }

    pub(crate) async fn pty(&self, pid: u32, bytes: impl Into<bytes::Bytes>) -> Result<(), Status> {
        self.input(pid, process_input::Input::Pty(bytes.into())).await
    }

    /// Sends to standard input from a task of its own.
    pub(crate) fn send_in_background(self: &Arc<Self>, pid: u32, bytes: Vec<u8>) -> JoinHandle<Result<(), Status>> {
        let agent = self.clone();
        tokio::spawn(async move { agent.stdin(pid, bytes).await })
    }

    /// Types from a task of its own.
    pub(crate) fn pty_in_background(
        self: &Arc<Self>,
        pid: u32,
        bytes: impl Into<bytes::Bytes>,
    ) -> JoinHandle<Result<(), Status>> {
        let (agent, bytes) = (self.clone(), bytes.into());
        tokio::spawn(async move { agent.pty(pid, bytes).await })
    }

    async fn input(&self, pid: u32, input: process_input::Input) -> Result<(), Status> {
        self.service.send_input(Request::new(input_request(pid, input))).await.map(|_| ())
    }

    pub(crate) async fn close_stdin(&self, pid: u32) -> Result<(), Status> {
        let request = CloseStdinRequest { process: Some(by_pid(pid)) };
        self.service.close_stdin(Request::new(request)).await.map(|_| ())
    }

    pub(crate) async fn resize(&self, pid: u32, cols: u32, rows: u32) -> Result<(), Status> {
        let pty = Some(Pty { size: Some(pty::Size { cols, rows }) });
        self.service.update(Request::new(UpdateRequest { process: Some(by_pid(pid)), pty })).await.map(|_| ())
    }
}

impl Events {
    /// The next event; fails the test if none comes or the stream ends.
    pub(crate) async fn next(&mut self) -> Result<Event, Status> {
        timeout(PATIENCE, self.0.next()).await.expect("no event in time").expect("the stream ended")
    }

    /// Asks for the next event without waiting for it: what came before is received, what comes is not.
    pub(crate) fn ask(&mut self) -> Poll<Option<Result<Event, Status>>> {
        self.0.as_mut().poll_next(&mut Context::from_waker(Waker::noop()))
    }

    /// Asks for the next event, which is not there.
    pub(crate) fn nothing_yet(&mut self) {
        let next = self.ask();
        assert!(next.is_pending(), "{next:?}");
    }

    /// Leaves as a client does that dies: nobody knows whether it has what came last.
    pub(crate) fn die(mut self) {
        self.0 = Box::pin(futures_util::stream::empty());
    }

    pub(crate) async fn started(&mut self) -> u32 {
        match self.next().await.unwrap() {
            Event::Start(start) => start.pid,
            other => panic!("{other:?} came before the start"),
        }
    }

    /// Reads output until it contains the text.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let next = timeout(PATIENCE, self.0.next()).await;
            let told = || format!("never said {text:?}, but {:?}", String::from_utf8_lossy(&seen));
            let event = next.unwrap_or_else(|_| panic!("{}", told())).unwrap_or_else(|| panic!("ended and {}", told()));
            if let Event::Data(DataEvent { output: Some(output), .. }) = event.unwrap() {
                let (Output::Stdout(data) | Output::Stderr(data) | Output::Pty(data)) = output;
                assert!(!data.is_empty(), "an empty chunk");
                seen.extend_from_slice(&data);
            }
            let seen = String::from_utf8_lossy(&seen);
            if seen.contains(text) {
                return seen.into_owned();
            }
        }
    }

    /// What the terminal says next.
    pub(crate) async fn pty_data(&mut self) -> bytes::Bytes {
        loop {
            if let Event::Data(DataEvent { output: Some(Output::Pty(data)), .. }) = self.next().await.unwrap() {
                return data;
            }
        }
    }

    /// Reads on until the stream ends.
    pub(crate) async fn all(mut self) -> Told {
        let mut told = Told::default();
        while let Some(event) = timeout(PATIENCE, self.0.next()).await.expect("no end in time") {
            assert!(told.end.is_none() && told.error.is_none(), "{event:?} after the end");
            match event {
                Ok(Event::Start(start)) => told.pid = start.pid,
                Ok(Event::Data(DataEvent { output, .. })) => match output.unwrap() {
                    Output::Stdout(data) => told.stdout.extend_from_slice(&data),
                    Output::Stderr(data) => told.stderr.extend_from_slice(&data),
                    Output::Pty(data) => told.pty.extend_from_slice(&data),
                },
                Ok(Event::Keepalive(_)) => told.keepalives += 1,
                Ok(Event::End(end)) => told.end = Some(end),
                Err(error) => told.error = Some(error),
            }
        }
        told
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _given_back = self.ask();
        }
    }
}

impl Told {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub(crate) fn pty(&self) -> String {
        String::from_utf8_lossy(&self.pty).into_owned()
    }

    pub(crate) fn status(&self) -> String {
        self.end.as_ref().map(|end| end.status.clone()).unwrap_or_default()
    }

    pub(crate) fn exit_code(&self) -> i32 {
        self.end.as_ref().expect("no end").exit_code
    }
}

pub(crate) fn command(cmd: &str, args: &[&str]) -> StartRequest {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let config = ProcessConfig { cmd: cmd.to_owned(), args, ..Default::default() };
    StartRequest { process: Some(config), stdin: Some(false), ..Default::default() }
}

pub(crate) fn sh(script: &str) -> StartRequest {
    command("/bin/sh", &["-c", script])
}

pub(crate) fn with_stdin(mut request: StartRequest) -> StartRequest {
    request.stdin = None;
    request
}

pub(crate) fn with_env(mut request: StartRequest, name: &str, value: &str) -> StartRequest {
    request.process.as_mut().unwrap().envs.insert(name.to_owned(), value.to_owned());
    request
}

pub(crate) fn with_cwd(mut request: StartRequest, cwd: &str) -> StartRequest {
    request.process.as_mut().unwrap().cwd = Some(cwd.to_owned());
    request
}

pub(crate) fn with_tag(mut request: StartRequest, tag: &str) -> StartRequest {
    request.tag = Some(tag.to_owned());
    request
}

pub(crate) fn with_pty(mut request: StartRequest, cols: u32, rows: u32) -> StartRequest {
    request.pty = Some(Pty { size: Some(pty::Size { cols, rows }) });
    request
}

pub(crate) fn by_pid(pid: u32) -> ProcessSelector {
    ProcessSelector { selector: Some(process_selector::Selector::Pid(pid)) }
}

pub(crate) fn by_tag(tag: &str) -> ProcessSelector {
    ProcessSelector { selector: Some(process_selector::Selector::Tag(tag.to_owned())) }
}

pub(crate) fn input_request(pid: u32, input: process_input::Input) -> SendInputRequest {
    SendInputRequest { process: Some(by_pid(pid)), input: Some(ProcessInput { input: Some(input) }) }
}

pub(crate) fn assert_error<T>(result: Result<T, Status>, code: Code, message: &str) {
    match result {
        Ok(_) => panic!("succeeded instead of {code:?}: {message}"),
        Err(status) => assert_eq!((status.code(), status.message()), (code, message)),
    }
}

/// The typed detail of an error; the test fails if it has none or others.
pub(crate) fn spawn_failure(status: &Status) -> SpawnFailure {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Rich {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    let rich = Rich::decode(status.details()).unwrap();
    assert_eq!((rich.code, rich.message.as_str()), (status.code() as i32, status.message()));
    let [detail] = rich.details.as_slice() else { panic!("{} details", rich.details.len()) };
    assert_eq!(detail.type_url, "type.googleapis.com/process.SpawnFailure");
    SpawnFailure::decode(detail.value.as_slice()).unwrap()
}

/// Whether a process with this pid exists, a zombie included.
pub(crate) fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether the test can act for other users.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Tests whose names end in `as_root` call this first; without root they are left out by name.
pub(crate) fn require_root() {
    assert!(is_root(), "needs root; leave it out with: cargo test -- --skip as_root");
}

pub(crate) fn shared(agent: Agent) -> Arc<Agent> {
    Arc::new(agent)
}
