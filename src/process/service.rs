//! The methods of the process service.

use std::pin::{Pin, pin};

use futures_core::Stream;
use futures_util::StreamExt;
use tokio::time::Instant;
use tonic::{Code, Extensions, Request, Response, Status, async_trait};

use super::{
    Processes, details::detailed_info, error::ProcessError, input::until, limit::Limit, signals, start::start,
    stream::Events,
};
use crate::{
    connect::Deadline,
    proto::process::{
        CloseStdinRequest, CloseStdinResponse, ConnectRequest, ConnectResponse, ListRequest, ListResponse,
        SendInputRequest, SendInputResponse, SendSignalRequest, SendSignalResponse, StartRequest, StartResponse,
        StreamInputRequest, StreamInputResponse, UpdateRequest, UpdateResponse, process_input::Input, process_server,
        stream_input_request::Event,
    },
    system::{
        blocking,
        caller::{caller, keepalive_interval},
    },
};

/// The process service over a set of processes; cheap to clone.
#[derive(Clone)]
pub struct ProcessService {
    processes: Processes,
}

type EventStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl ProcessService {
    /// Serves these processes.
    pub fn new(processes: Processes) -> Self {
        Self { processes }
    }

    /// What the method [`stream_input`](process_server::Process::stream_input) does, for any stream of messages. No
    /// more than one message of input is taken ahead of the one that is being written: that slows a client down to
    /// its process, and still notices when it leaves.
    async fn feed<S>(&self, mut messages: S, deadline: Option<Instant>) -> Result<(), Status>
    where
        S: Stream<Item = Result<StreamInputRequest, Status>> + Unpin,
    {
        let table = &self.processes.inner.table;
        let mut target = None;
        let mut before = 0;
        let mut ahead = None;
        loop {
            let message = match ahead.take() {
                Some(message) => message,
                None => match until(deadline, messages.next()).await {
                    Some(message) => message,
                    None => return Err(ProcessError::InputDeadline { written: before }.into()),
                },
            };
            let Some(message) = message else { return Ok(()) };
            match message?.event.ok_or(ProcessError::NoEvent)? {
                Event::Start(start) => target = Some(table.find_live(start.process)?),
                Event::Data(data) => {
                    let process = target.as_ref().ok_or(ProcessError::InputBeforeStart)?;
                    let input = data.input.and_then(|input| input.input).ok_or(ProcessError::NoInput)?;
                    let (Input::Stdin(bytes) | Input::Pty(bytes)) = &input;
                    let length = bytes.len();
                    let mut write = pin!(process.write(input, deadline));
                    let written = loop {
                        let next = tokio::select! {
                            biased;
                            written = &mut write => break written,
                            next = messages.next(), if ahead.is_none() => next,
                        };
                        match next {
                            Some(Ok(StreamInputRequest { event: Some(Event::Keepalive(_)) })) => {}
                            // Nobody is left to send the rest or to hear of it.
                            Some(Err(left)) if left.code() == Code::Cancelled => return Err(left),
                            next => ahead = Some(next),
                        }
                    };
                    match written {
                        Ok(()) => before += length,
                        Err(ProcessError::InputDeadline { written }) => {
                            return Err(ProcessError::InputDeadline { written: before + written }.into());
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Event::Keepalive(_) => {}
            }
        }
    }
}

#[async_trait]
impl process_server::Process for ProcessService {
    type StartStream = EventStream<StartResponse>;
    type ConnectStream = EventStream<ConnectResponse>;

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<Self::StartStream>, Status> {
        let inner = &self.processes.inner;
        let user = caller(request.extensions(), &inner.identity, &inner.settings)?;
        let keepalive = keepalive_interval(request.metadata());
        let deadline = deadline(request.extensions());
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(ProcessError::DeadlineExceeded.into());
        }
        // Starting waits for the disk and for the child's exec. It finishes also when the caller is gone by then: the
        // process is listed, and its output waits for somebody to connect.
        let (processes, request) = (self.processes.clone(), request.into_inner());
        let details = request.details;
        let limit = Limit::of(request.time_limit.as_ref(), deadline)?;
        let started = blocking::run(move || start(&processes, request, &user, deadline, limit)).await;
        let (process, output) = started.map_err(|error| ProcessError::Internal(error.to_string()))??;
        let events = Events::new(&process, output, details, keepalive, deadline, inner.shutdown.clone());
        let responses = events.map(|event| Ok(StartResponse { event: Some(event?) }));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn connect(&self, request: Request<ConnectRequest>) -> Result<Response<Self::ConnectStream>, Status> {
        let inner = &self.processes.inner;
        let keepalive = keepalive_interval(request.metadata());
        let deadline = deadline(request.extensions());
        let ConnectRequest { process, replay_from, details } = request.into_inner();
        let process = inner.table.find(process)?;
        let output = match replay_from {
            None => process.log.subscribe(),
            Some(offset) => process.log.subscribe_from(offset).map_err(|written| {
                let pid = process.pid();
                ProcessError::ReplayBeyond { pid, offset, written }
            })?,
        };
        let details = details || replay_from.is_some();
        let events = Events::new(&process, output, details, keepalive, deadline, inner.shutdown.clone());
        let responses = events.map(|event| Ok(ConnectResponse { event: Some(event?) }));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let ListRequest { details, include_ended } = request.into_inner();
        let table = &self.processes.inner.table;
        if !details && !include_ended {
            let processes = table.live().iter().map(|process| process.info()).collect();
            return Ok(Response::new(ListResponse { processes }));
        }
        let listed = if include_ended { table.all() } else { table.live() };
        let read = move || listed.iter().map(|process| detailed_info(process)).collect();
        let read = blocking::run(read).await;
        let processes = read.map_err(|error| ProcessError::Internal(error.to_string()))?;
        Ok(Response::new(ListResponse { processes }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        let UpdateRequest { process, pty } = request.into_inner();
        let process = self.processes.inner.table.find_live(process)?;
        if let Some(pty) = pty {
            process.resize(pty.size)?;
        }
        Ok(Response::new(UpdateResponse {}))
    }

    async fn send_input(&self, request: Request<SendInputRequest>) -> Result<Response<SendInputResponse>, Status> {
        let deadline = deadline(request.extensions());
        let SendInputRequest { process, input } = request.into_inner();
        let process = self.processes.inner.table.find_live(process)?;
        let input = input.and_then(|input| input.input).ok_or(ProcessError::NoInput)?;
        process.write(input, deadline).await?;
        Ok(Response::new(SendInputResponse {}))
    }

    async fn stream_input(
        &self,
        request: Request<tonic::Streaming<StreamInputRequest>>,
    ) -> Result<Response<StreamInputResponse>, Status> {
        let deadline = deadline(request.extensions());
        self.feed(request.into_inner(), deadline).await?;
        Ok(Response::new(StreamInputResponse {}))
    }

    async fn send_signal(&self, request: Request<SendSignalRequest>) -> Result<Response<SendSignalResponse>, Status> {
        let mut request = request.into_inner();
        let process = self.processes.inner.table.find_live(request.process.take())?;
        let (signal, scope) = signals::asked_for(&request)?;
        process.signal(signal, scope).await?;
        Ok(Response::new(SendSignalResponse {}))
    }

    async fn close_stdin(&self, request: Request<CloseStdinRequest>) -> Result<Response<CloseStdinResponse>, Status> {
        self.processes.inner.table.find_live(request.into_inner().process)?.close_stdin()?;
        Ok(Response::new(CloseStdinResponse {}))
    }
}

fn deadline(extensions: &Extensions) -> Option<Instant> {
    extensions.get::<Deadline>().map(|deadline| deadline.at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::{super::Processes, *};
    use crate::{
        proto::process::{
            ProcessConfig, ProcessInput, ProcessSelector, process_event, process_input,
            process_selector::Selector,
            process_server::Process,
            stream_input_request::{DataEvent, KeepAlive, StartEvent},
        },
        system::{identity::Identity, settings::Settings},
    };

    fn service() -> ProcessService {
        let identity = Identity::system();
        let settings = Settings::new(identity.own().name.clone(), Some("/".to_owned()), [].into());
        ProcessService::new(Processes::start(identity, settings).unwrap())
    }

    fn select(pid: u32) -> Option<Event> {
        let process = Some(ProcessSelector { selector: Some(Selector::Pid(pid)) });
        Some(Event::Start(StartEvent { process }))
    }

    fn data(text: &'static str) -> Option<Event> {
        let input = Some(process_input::Input::Stdin(text.into()));
        Some(Event::Data(DataEvent { input: Some(ProcessInput { input }) }))
    }

    async fn feed(service: &ProcessService, events: Vec<Option<Event>>) -> Result<(), Status> {
        let messages = events.into_iter().map(|event| Ok(StreamInputRequest { event }));
        service.feed(futures_util::stream::iter(messages), None).await
    }

    #[tokio::test]
    async fn streamed_input_arrives_in_order() {
        let service = service();
        let config = ProcessConfig { cmd: "/bin/cat".into(), ..Default::default() };
        let request = StartRequest { process: Some(config), ..Default::default() };
        let mut events = service.start(Request::new(request)).await.unwrap().into_inner();
        let Some(process_event::Event::Start(start)) = events.next().await.unwrap().unwrap().event.unwrap().event
        else {
            panic!("no start")
        };
        let keepalive = Some(Event::Keepalive(KeepAlive {}));
        feed(&service, vec![select(start.pid), data("a"), keepalive, data("b"), data("")]).await.unwrap();
        let process = Some(ProcessSelector { selector: Some(Selector::Pid(start.pid)) });
        service.close_stdin(Request::new(CloseStdinRequest { process })).await.unwrap();
        let mut output = Vec::new();
        while let Some(event) = events.next().await {
            if let Some(process_event::Event::Data(data)) = event.unwrap().event.unwrap().event {
                let Some(process_event::data_event::Output::Stdout(data)) = data.output else { panic!("{data:?}") };
                output.extend_from_slice(&data);
            }
        }
        assert_eq!(output, b"ab");
    }

    #[tokio::test]
    async fn one_message_is_taken_ahead_of_the_one_that_is_being_written() {
        let service = service();
        let config = ProcessConfig { cmd: "/bin/sleep".into(), args: vec!["1000".into()], ..Default::default() };
        let request = StartRequest { process: Some(config), ..Default::default() };
        let mut events = service.start(Request::new(request)).await.unwrap().into_inner();
        let Some(process_event::Event::Start(start)) = events.next().await.unwrap().unwrap().event.unwrap().event
        else {
            panic!("no start")
        };
        let taken = std::cell::Cell::new(0);
        let piece: &'static str = "x".repeat(8192).leak();
        let messages = std::iter::once(select(start.pid)).chain(std::iter::repeat_with(|| {
            taken.set(taken.get() + 1);
            data(piece)
        }));
        let messages = futures_util::stream::iter(messages.map(|event| Ok(StreamInputRequest { event })));
        let mut feeding = Box::pin(service.feed(messages, None));
        for _ in 0..100 {
            assert!(futures_util::future::poll_immediate(&mut feeding).await.is_none());
            // What fits into a full pipe, the message that does not, and one ahead.
            assert_eq!(taken.get(), 262_144 / 8192 + 2);
            tokio::task::yield_now().await;
        }
        drop(feeding);
        let process = Some(ProcessSelector { selector: Some(Selector::Pid(start.pid)) });
        let kill = SendSignalRequest { process, signal: libc::SIGKILL, ..Default::default() };
        service.send_signal(Request::new(kill)).await.unwrap();
        while events.next().await.is_some() {}
    }

    #[tokio::test]
    async fn odd_input_streams_get_their_codes() {
        let service = service();
        feed(&service, vec![]).await.unwrap();
        let code = |result: Result<(), Status>| result.unwrap_err().code();
        assert_eq!(code(feed(&service, vec![data("x")]).await), Code::FailedPrecondition);
        assert_eq!(code(feed(&service, vec![select(999_999_999)]).await), Code::NotFound);
        let error = feed(&service, vec![None]).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unimplemented, "invalid event type <nil>"));
    }
}
