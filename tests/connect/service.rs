//! A service that does what its requests say.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use envd::connect::{Deadline, Router, Trailers};
use envd::system::buffers::Buffer;
use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataMap};

/// What to do.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Order {
    #[prost(string, tag = "1")]
    pub text: String,
    /// How many responses a stream sends.
    #[prost(uint32, tag = "2")]
    pub count: u32,
    /// The code to fail with at the end; 0 for success.
    #[prost(int32, tag = "3")]
    pub fail: i32,
    /// Streams only: stay silent for ever after the responses.
    #[prost(bool, tag = "4")]
    pub hang: bool,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    #[prost(string, tag = "1")]
    pub text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RichStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// What happened, for the test to look at.
#[derive(Clone, Default)]
pub struct Trace {
    pub calls: Arc<AtomicUsize>,
    pub dropped: Arc<AtomicBool>,
}

pub struct Example(Trace);

pub type Answers = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

/// Proof in the request's extensions that HTTP extensions reach the handler.
#[derive(Clone)]
pub struct Extension(pub &'static str);

/// Echoes `x-…` request metadata as headers and, prefixed, as trailers.
fn echo<M>(metadata: &MetadataMap, message: M) -> Response<M> {
    let mut response = Response::new(message);
    let mut trailers = MetadataMap::new();
    for value in metadata.get_all("x-echo") {
        response.metadata_mut().append("x-echo", value.clone());
        trailers.append("x-trailer", value.clone());
    }
    if let Some(value) = metadata.get_bin("x-echo-bin") {
        let bytes = value.to_bytes().unwrap();
        response.metadata_mut().insert_bin("x-echo-bin", tonic::metadata::MetadataValue::from_bytes(&bytes));
    }
    response.metadata_mut().insert("content-type", "text/evil".parse().unwrap());
    response.extensions_mut().insert(Trailers(trailers));
    response
}

fn failure(order: &Order) -> Status {
    let rich = RichStatus {
        details: vec![Any { type_url: "type.googleapis.com/example.Order".to_owned(), value: order.encode_to_vec() }],
    };
    let mut status = Status::with_details(Code::from_i32(order.fail), &order.text, rich.encode_to_vec().into());
    status.metadata_mut().insert("x-failure", "meta".parse().unwrap());
    status
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

impl Example {
    async fn unary(&self, request: Request<Order>) -> Result<Response<Answer>, Status> {
        self.0.calls.fetch_add(1, SeqCst);
        let order = request.get_ref();
        if order.fail != 0 {
            return Err(failure(order));
        }
        let mut text = order.text.clone();
        if let Some(Deadline { limit, .. }) = request.extensions().get() {
            text.push_str(&format!(" within {limit:?}"));
        }
        if let Some(Extension(word)) = request.extensions().get() {
            text.push_str(word);
        }
        Ok(echo(request.metadata(), Answer { text }))
    }

    fn answers(&self, order: Order) -> Answers {
        let texts = (0..order.count).map({
            let text = order.text.clone();
            move |n| Ok(Answer { text: format!("{text}{n}") })
        });
        let last: Answers = if order.fail != 0 {
            Box::pin(stream::iter([Err(failure(&order))]))
        } else if order.hang {
            Box::pin(stream::pending())
        } else {
            Box::pin(stream::empty())
        };
        let guard = OnDrop(self.0.dropped.clone());
        Box::pin(stream::iter(texts).chain(last).map(move |answer| {
            let _keep = &guard;
            answer
        }))
    }

    async fn download(&self, request: Request<Order>) -> Result<Response<Answers>, Status> {
        self.0.calls.fetch_add(1, SeqCst);
        if request.get_ref().text == "fail early" {
            return Err(failure(request.get_ref()));
        }
        let answers = self.answers(request.get_ref().clone());
        Ok(echo(request.metadata(), answers))
    }

    async fn upload(&self, request: Request<Streaming<Order>>) -> Result<Response<Answer>, Status> {
        self.0.calls.fetch_add(1, SeqCst);
        let metadata = request.metadata().clone();
        let mut orders = request.into_inner();
        let mut texts = Vec::new();
        loop {
            match orders.message().await {
                Ok(Some(order)) if order.fail != 0 => return Err(failure(&order)),
                Ok(Some(order)) => texts.push(order.text),
                Ok(None) => break,
                Err(status) => {
                    // The error comes once, then the stream is over.
                    assert!(orders.message().await.unwrap().is_none());
                    return Err(status);
                }
            }
        }
        Ok(echo(&metadata, Answer { text: texts.join("+") }))
    }

    async fn chat(&self, request: Request<Streaming<Order>>) -> Result<Response<Answers>, Status> {
        self.0.calls.fetch_add(1, SeqCst);
        let metadata = request.metadata().clone();
        let answers = request.into_inner().map(|order| order.map(|order| Answer { text: order.text }));
        Ok(echo(&metadata, Box::pin(answers) as Answers))
    }
}

fn write_answer(answer: &Answer, out: &mut Buffer) -> Result<(), String> {
    if answer.text.contains("unspeakable") {
        return Err("it cannot be said".to_owned());
    }
    out.put(format!("{{\"text\":\"<{}>\"}}", answer.text).as_bytes());
    Ok(())
}

/// The router of every test.
pub fn router() -> (Router, Trace) {
    let trace = Trace::default();
    let router =
        Router::new().max_message_bytes(100_000).service("example.Example", Example(trace.clone()), |methods| {
            methods
                .unary("Unary", |example, request| async move { example.unary(request).await })
                .unary_with("Written", |example, request| async move { example.unary(request).await }, write_answer)
                .server_stream("Download", |example, request| async move { example.download(request).await })
                .server_stream_with(
                    "WrittenDownload",
                    |example, request| async move { example.download(request).await },
                    write_answer,
                )
                .client_stream("Upload", |example, request| async move { example.upload(request).await })
                .bidi_stream("Chat", |example, request| async move { example.chat(request).await })
        });
    (router, trace)
}
