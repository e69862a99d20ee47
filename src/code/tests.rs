//! The whole port over scripted kernels.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is the test's failure")]

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kernel_bridge::{Channel, Ending, Event};
use serde_json::{Value, json};

use super::{
    CodeService,
    kernels::{BoxFuture, ChangeError, CreateError, Described, Events, Kernels, NewContext},
};
use crate::{
    Body,
    system::{
        identity::Identity,
        settings::{Environment, Settings},
    },
};

/// Id of the context, code, variables.
type Cell = (String, String, BTreeMap<String, String>);

/// Kernels that answer every cell with a fixed script and remember what they were asked.
#[derive(Default)]
struct Scripted {
    installed: Vec<&'static str>,
    contexts: Mutex<Vec<Described>>,
    created: AtomicUsize,
    broken: AtomicBool,
    silent: bool,
    cells: Mutex<Vec<Cell>>,
}

impl Kernels for Arc<Scripted> {
    fn has_kernel(&self, name: &str) -> bool {
        self.installed.contains(&name)
    }

    fn create(&self, new: NewContext) -> BoxFuture<'_, Result<Described, CreateError>> {
        Box::pin(async move {
            // Somebody else's turn: concurrent requests must not make two.
            tokio::task::yield_now().await;
            if !self.has_kernel(&new.kernel) {
                return Err(CreateError::UnknownKernel(new.kernel));
            }
            if !new.cwd.is_dir() {
                return Err(CreateError::BadCwd(format!("{}: no such directory", new.cwd.display())));
            }
            if self.broken.load(Ordering::SeqCst) {
                return Err(CreateError::Failed("exit status 1".to_owned()));
            }
            let id = format!("c{}", self.created.fetch_add(1, Ordering::SeqCst));
            let cwd = new.cwd.to_str().unwrap().to_owned();
            let context = Described { id, language: new.language, cwd };
            self.contexts.lock().unwrap().push(context.clone());
            Ok(context)
        })
    }

    fn get(&self, id: &str) -> Option<Described> {
        self.contexts.lock().unwrap().iter().find(|context| context.id == id).cloned()
    }

    fn list(&self) -> Vec<Described> {
        self.contexts.lock().unwrap().clone()
    }

    fn execute(&self, id: &str, code: String, env: BTreeMap<String, String>) -> Option<Events> {
        self.get(id)?;
        self.cells.lock().unwrap().push((id.to_owned(), code, env));
        if self.silent {
            return Some(Box::pin(stream::pending()));
        }
        let Value::Object(data) = json!({"text/plain": "2"}) else { panic!() };
        let date = Some("2026-11-20T20:02:55.100736Z".to_owned());
        Some(Box::pin(stream::iter(vec![
            Event::Input { execution_count: 1 },
            Event::Stream { channel: Channel::Stdout, text: "hi\n".to_owned(), date },
            Event::Result { data, main: true },
            Event::End(Ending::Finished),
        ])))
    }

    fn restart<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ChangeError>> {
        Box::pin(async move {
            if self.broken.load(Ordering::SeqCst) {
                return Err(ChangeError::Failed("exit status 1".to_owned()));
            }
            self.get(id).map(drop).ok_or(ChangeError::NotFound)
        })
    }

    fn delete<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ChangeError>> {
        Box::pin(async move {
            let mut contexts = self.contexts.lock().unwrap();
            let at = contexts.iter().position(|context| context.id == id).ok_or(ChangeError::NotFound)?;
            contexts.remove(at);
            Ok(())
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

fn scripted(installed: &[&'static str]) -> Arc<Scripted> {
    Arc::new(Scripted { installed: installed.to_vec(), ..Scripted::default() })
}

/// The service, and the directory that stands for the default user's home.
fn service_over(kernels: &Arc<Scripted>) -> (CodeService, Settings, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let passwd = home.path().join("passwd");
    fs::write(&passwd, format!("user:x:1000:1000::{}:/bin/sh\n", home.path().display())).unwrap();
    fs::write(home.path().join("group"), "").unwrap();
    let identity = Identity::from_files(passwd, home.path().join("group"), None);
    let settings = Settings::new("user".into(), None, Environment::from([("G".into(), "1".into())]));
    (CodeService::over(Arc::new(kernels.clone()), settings.clone(), identity), settings, home)
}

async fn send(service: &CodeService, method: &str, path: &str, body: &str) -> Response<Body> {
    let body = Body::new(Full::new(bytes::Bytes::copy_from_slice(body.as_bytes())));
    service.call(Request::builder().method(method).uri(path).body(body).unwrap()).await
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn ask(service: &CodeService, method: &str, path: &str, body: &str) -> (u16, String) {
    let response = send(service, method, path, body).await;
    (response.status().as_u16(), text(response).await)
}

async fn execute(service: &CodeService, body: &Value) -> (u16, String) {
    ask(service, "POST", "/execute", &body.to_string()).await
}

#[tokio::test]
async fn a_cell_is_answered_in_lines_without_a_content_type() {
    let kernels = scripted(&["python"]);
    let (service, ..) = service_over(&kernels);
    let response =
        send(&service, "POST", "/execute", r#"{"code": "print('hi'); 1+1", "env_vars": {"A": "1\n'"}}"#).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().is_empty(), "{:?}", response.headers());
    assert_eq!(
        text(response).await,
        concat!(
            "{\"type\": \"number_of_executions\", \"execution_count\": 1}\n",
            "{\"type\": \"stdout\", \"text\": \"hi\\n\", \"timestamp\": \"2026-11-20T20:02:55.100736+00:00\"}\n",
            "{\"type\": \"result\", \"text\": \"2\", \"extra\": {}, \"is_main_result\": true}\n",
            "{\"type\": \"end_of_execution\"}\n",
        )
    );
    let cells = kernels.cells.lock().unwrap();
    assert_eq!(cells[0].1, "print('hi'); 1+1");
    assert_eq!(cells[0].2, BTreeMap::from([("A".to_owned(), "1\n'".to_owned())]));
}

#[tokio::test]
async fn headers_do_not_wait_for_the_kernel_and_shutdown_ends_the_stream() {
    let kernels = Arc::new(Scripted { installed: vec!["python"], silent: true, ..Scripted::default() });
    let (service, ..) = service_over(&kernels);
    let response = send(&service, "POST", "/execute", r#"{"code": "while True: pass"}"#).await;
    assert_eq!(response.status(), StatusCode::OK);
    service.shutdown().await;
    assert!(text(response).await.ends_with("{\"type\": \"end_of_execution\"}\n"));
}

#[tokio::test]
async fn defaults_come_first_and_contexts_are_listed_in_order() {
    let kernels = scripted(&["python", "javascript"]);
    let (service, _, home) = service_over(&kernels);
    service.ready().await.unwrap();
    let made = ask(&service, "POST", "/contexts", r#"{"language": " TS ", "cwd": "/"}"#).await;
    assert_eq!(made, (200, r#"{"id":"c2","language":"typescript","cwd":"/"}"#.to_owned()));
    let listed: Value = serde_json::from_str(&ask(&service, "GET", "/contexts", "").await.1).unwrap();
    let home = home.path().to_str().unwrap();
    assert_eq!(
        listed,
        json!([
            {"id": "c0", "language": "python", "cwd": home},
            {"id": "c1", "language": "javascript", "cwd": home},
            {"id": "c2", "language": "typescript", "cwd": "/"},
        ])
    );
}

#[tokio::test]
async fn cells_find_their_context() {
    let kernels = scripted(&["python", "javascript"]);
    let (service, ..) = service_over(&kernels);
    service.contexts().await;
    for (body, id) in [
        (json!({"code": ""}), "c0"),
        (json!({"code": "", "language": "PYTHON"}), "c0"),
        (json!({"code": "", "context_id": "default"}), "c0"),
        (json!({"code": "", "context_id": "", "language": "js"}), "c1"),
        (json!({"code": "", "language": "ts"}), "c2"),
        (json!({"code": "", "language": "typescript"}), "c2"),
        (json!({"code": "", "context_id": "c1"}), "c1"),
    ] {
        assert_eq!(execute(&service, &body).await.0, 200, "{body}");
        assert_eq!(kernels.cells.lock().unwrap().last().unwrap().0, id, "{body}");
    }
    let both = execute(&service, &json!({"code": "", "context_id": "x", "language": "js"})).await;
    assert_eq!(both, (400, "Only one of context_id or language can be provided".to_owned()));
    let unknown = execute(&service, &json!({"code": "", "context_id": "x"})).await;
    assert_eq!(unknown, (404, "Context x not found".to_owned()));
    let cobol = (
        500,
        "Failed to create context: {\"message\": \"The 'cobol' kernel is not available. Please pick another suitable \
         kernel instead, or install that kernel.\", \"short_message\": \"cobol not found\"}"
            .to_owned(),
    );
    assert_eq!(execute(&service, &json!({"code": "", "language": "cobol"})).await, cobol);
    assert_eq!(ask(&service, "POST", "/contexts", r#"{"language": "cobol"}"#).await, cobol);
    assert_eq!(execute(&service, &json!({"language": "js"})).await.0, 422);
}

#[tokio::test]
async fn concurrent_first_requests_share_one_default_context() {
    let kernels = scripted(&["python", "bash"]);
    let (service, ..) = service_over(&kernels);
    let body = json!({"code": "", "language": "bash"});
    let requests = (0..8).map(|_| execute(&service, &body));
    futures_util::future::join_all(requests).await;
    service.contexts().await;
    assert_eq!(kernels.created.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_deleted_default_comes_back_when_it_is_needed() {
    let kernels = scripted(&["python"]);
    let (service, ..) = service_over(&kernels);
    service.ready().await.unwrap();
    assert_eq!(ask(&service, "POST", "/contexts/c0/restart", "").await, (200, "null".to_owned()));
    assert_eq!(ask(&service, "DELETE", "/contexts/default", "").await, (200, "null".to_owned()));
    assert_eq!(ask(&service, "DELETE", "/contexts/c0", "").await, (404, "Context c0 not found".to_owned()));
    assert_eq!(ask(&service, "GET", "/contexts", "").await.1, "[]");
    assert_eq!(execute(&service, &json!({"code": ""})).await.0, 200);
    assert_eq!(kernels.cells.lock().unwrap()[0].0, "c1");
}

#[tokio::test]
async fn failures_of_contexts_have_their_texts() {
    let kernels = scripted(&["python"]);
    let (service, ..) = service_over(&kernels);
    service.ready().await.unwrap();
    let missing = ask(&service, "POST", "/contexts/x%20y/restart", "").await;
    assert_eq!(missing, (404, "Context x y not found".to_owned()));
    let (status, why) = ask(&service, "POST", "/contexts", r#"{"cwd": "/no/such"}"#).await;
    assert_eq!((status, why.starts_with("Failed to set working directory")), (500, true), "{why}");
    assert_eq!(ask(&service, "POST", "/contexts", r#"{"cwd": "/a\u0000"}"#).await.0, 500);
    kernels.broken.store(true, Ordering::SeqCst);
    let failed = ask(&service, "POST", "/contexts/c0/restart", "").await;
    assert_eq!(failed, (500, "Failed to restart context c0".to_owned()));
    let failed = ask(&service, "POST", "/contexts", "{}").await;
    assert_eq!(failed, (500, "Failed to create context: exit status 1".to_owned()));
    assert_eq!(ask(&service, "POST", "/contexts", "").await.0, 422);
}

#[tokio::test]
async fn health_follows_the_default_python_context() {
    let kernels = scripted(&["python"]);
    kernels.broken.store(true, Ordering::SeqCst);
    let (service, ..) = service_over(&kernels);
    assert_eq!(ask(&service, "GET", "/health", "").await.0, 503);
    assert_eq!(service.ready().await, Err("exit status 1".to_owned()));
    service.contexts().await;
    let (status, why) = ask(&service, "GET", "/health", "").await;
    assert_eq!((status, why.contains("exit status 1")), (503, true));
    kernels.broken.store(false, Ordering::SeqCst);
    assert_eq!(execute(&service, &json!({"code": ""})).await.0, 200);
    assert_eq!(ask(&service, "GET", "/health", "").await, (200, "\"OK\"".to_owned()));

    let (service, ..) = service_over(&scripted(&["bash"]));
    assert!(service.ready().await.is_err());
    assert_eq!(ask(&service, "GET", "/health", "").await.0, 200);
}

#[tokio::test]
async fn variables_set_after_the_kernel_started_travel_with_each_cell() {
    let kernels = scripted(&["python"]);
    let (service, settings, _home) = service_over(&kernels);
    service.ready().await.unwrap();
    let env_of = async |body: Value| {
        execute(&service, &body).await;
        kernels.cells.lock().unwrap().last().unwrap().2.clone()
    };
    let map = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(env_of(json!({"code": ""})).await, map(&[]));
    settings.set_user_environment(map(&[("G", "1"), ("H", "2"), ("I", "3")]));
    let env = env_of(json!({"code": "", "env_vars": {"H": "mine"}})).await;
    assert_eq!(env, map(&[("H", "mine"), ("I", "3")]));
    ask(&service, "POST", "/contexts/c0/restart", "").await;
    assert_eq!(env_of(json!({"code": ""})).await, map(&[]));
}

#[tokio::test]
async fn other_paths_and_methods() {
    let (service, ..) = service_over(&scripted(&["python"]));
    service.contexts().await;
    for (method, path, status, allow) in [
        ("GET", "/", 404, None),
        ("GET", "/nothing", 404, None),
        ("POST", "/contexts/a/b", 404, None),
        ("POST", "/contexts/a/restart/b", 404, None),
        ("HEAD", "/health", 405, Some("GET")),
        ("OPTIONS", "/health", 405, Some("GET")),
        ("GET", "/execute", 405, Some("POST")),
        ("PUT", "/contexts", 405, Some("GET, POST")),
        ("GET", "/contexts/a", 405, Some("DELETE")),
    ] {
        let response = send(&service, method, path, "").await;
        assert_eq!(response.status(), status, "{method} {path}");
        let answered = response.headers().get("allow").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(answered.as_deref(), allow, "{method} {path}");
    }
    assert_eq!(ask(&service, "GET", "/nothing", "").await.1, r#"{"detail":"Not Found"}"#);
    assert_eq!(ask(&service, "PUT", "/health", "").await.1, r#"{"detail":"Method Not Allowed"}"#);
    let moved = send(&service, "GET", "/contexts/?source=x", "").await;
    assert_eq!(moved.status(), 307);
    assert_eq!(moved.headers()["location"], "/contexts?source=x");
    assert_eq!(send(&service, "GET", "/health?source=x", "").await.status(), 200);
}

#[tokio::test]
async fn any_origin_may_call_without_credentials() {
    let (service, ..) = service_over(&scripted(&["python"]));
    service.contexts().await;
    let call = async |method: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/health");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.call(request.body(Body::empty()).unwrap()).await
    };
    let simple = call("GET", &[("origin", "https://a.example")]).await;
    assert_eq!(simple.headers()["access-control-allow-origin"], "*");
    assert!(!simple.headers().contains_key("vary"));
    let cookies = call("GET", &[("origin", "https://a.example"), ("cookie", "a=b")]).await;
    assert_eq!(cookies.headers()["access-control-allow-origin"], "https://a.example");
    assert_eq!(cookies.headers()["vary"], "Origin");
    assert!(!call("GET", &[]).await.headers().contains_key("access-control-allow-origin"));

    let asks = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-access-token, content-type"),
    ];
    let preflight = call("OPTIONS", &asks).await;
    assert_eq!(preflight.status(), 200);
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        ("access-control-allow-headers", "x-access-token, content-type"),
        ("access-control-max-age", "600"),
        ("content-type", "text/plain; charset=utf-8"),
    ] {
        assert_eq!(preflight.headers()[name], value);
    }
    assert_eq!(text(preflight).await, "OK");
    let odd = call("OPTIONS", &[("origin", "https://a.example"), ("access-control-request-method", "BREW")]).await;
    assert_eq!(odd.status(), 400);
}
