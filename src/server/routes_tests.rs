#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed expectation is the test's failure, and one handler panics on purpose"
)]

use base64_simd::STANDARD;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;

use super::*;
use crate::{
    server::{auth::Token, errors::http::text},
    system::caller::RequestUser,
};

struct Stub;

impl Procedures for Stub {
    fn has(&self, path: &str) -> bool {
        ["/process.Process/List", "/process.Process/Start"].contains(&path)
    }

    fn call(&self, request: Request<Body>) -> Reply {
        assert!(!request.headers().contains_key("x-boom"), "asked to");
        Box::pin(async move { text(StatusCode::OK, "called") })
    }

    fn error(&self, _headers: &HeaderMap, status: Status) -> Response<Body> {
        text(StatusCode::IM_A_TEAPOT, format!("{:?}: {}", status.code(), status.message()))
    }
}

fn agent(token: Option<&str>) -> (tempfile::TempDir, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let (passwd, group) = (dir.path().join("passwd"), dir.path().join("group"));
    std::fs::write(&passwd, "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n").unwrap();
    std::fs::write(&group, "").unwrap();
    let identity = Identity::from_files(passwd, group, None);
    let gate = Gate::default();
    gate.set(token.map(|token| Token::new(token.to_owned())));
    let table = Table::default()
        .route(Method::GET, "/health", async |_| text(StatusCode::OK, "well"))
        .route(Method::GET, "/files", async |_| text(StatusCode::OK, "down"))
        .route(Method::POST, "/files", async |_| text(StatusCode::OK, "up"))
        .route(Method::GET, "/boom", async |_| panic!("asked to"))
        .route(Method::GET, "/who", |request: Request<Body>| {
            let user = request.extensions().get::<RequestUser>().map(|user| user.0.name.clone());
            async move { text(StatusCode::OK, user.unwrap_or_else(|| "nobody".to_owned())) }
        });
    (dir, Agent::new(gate, identity, table, Arc::new(Stub)))
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn ask(agent: &Agent, method: &str, path: &str, headers: &[(&str, &str)]) -> (Response<()>, String) {
    let (head, body) = agent.call(request(method, path, headers)).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).unwrap())
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode_to_string(format!("{user}:")))
}

#[tokio::test]
async fn unknown_paths_are_404_also_under_a_known_service() {
    let (_dir, agent) = agent(None);
    for path in ["/", "/health/", "/nope", "/process.Process/Nope", "/process.Process"] {
        let (response, body) = ask(&agent, "POST", path, &[]).await;
        assert_eq!((response.status(), body.as_str()), (StatusCode::NOT_FOUND, "404 page not found\n"), "{path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    }
}

#[tokio::test]
async fn wrong_methods_are_405_with_one_allow_line_each() {
    let (_dir, agent) = agent(None);
    for (method, path, allowed) in [
        ("HEAD", "/files", &["GET", "POST"][..]),
        ("HEAD", "/health", &["GET"]),
        ("OPTIONS", "/health", &["GET"]),
        ("GET", "/process.Process/List", &["POST"]),
    ] {
        let (response, body) = ask(&agent, method, path, &[]).await;
        assert_eq!((response.status(), body.as_str()), (StatusCode::METHOD_NOT_ALLOWED, ""), "{method} {path}");
        let lines: Vec<&str> =
            response.headers().get_all(header::ALLOW).iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(lines, allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn the_gate_answers_an_integer_code_also_for_procedures_and_unknown_paths() {
    let (_dir, agent) = agent(Some("tok"));
    for (method, path) in [("POST", "/process.Process/List"), ("GET", "/nope"), ("HEAD", "/health"), ("GET", "/who")] {
        let (response, body) = ask(&agent, method, path, &[("origin", "https://page")]).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(
            body,
            "{\"code\":401,\"message\":\"unauthorized access, please provide a valid access token or method signing \
             if supported\"}\n"
        );
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "application/json; charset=utf-8");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers[header::VARY], "Origin");
    }
    let (response, body) = ask(&agent, "POST", "/process.Process/List", &[("x-access-token", "tok")]).await;
    assert_eq!((response.status(), body.as_str()), (StatusCode::OK, "called"));
}

#[tokio::test]
async fn a_preflight_needs_no_token() {
    let (_dir, agent) = agent(Some("tok"));
    let asking = [("origin", "https://page"), ("access-control-request-method", "POST")];
    let (response, _) = ask(&agent, "OPTIONS", "/process.Process/List", &asking).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let (response, _) = ask(&agent, "OPTIONS", "/process.Process/List", &[]).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_basic_user_is_looked_up_on_every_route_after_the_gate() {
    let (_dir, agent) = agent(None);
    let (_, body) = ask(&agent, "GET", "/who", &[("authorization", &basic("user"))]).await;
    assert_eq!(body, "user");
    let (_, body) = ask(&agent, "GET", "/who", &[("authorization", "Bearer x")]).await;
    assert_eq!(body, "nobody");
    for path in ["/health", "/files", "/process.Process/List", "/nope"] {
        let (response, body) = ask(&agent, "GET", path, &[("authorization", &basic("ghost"))]).await;
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT, "{path}");
        assert_eq!(body, "Unauthenticated: invalid username: 'ghost'");
    }
    let (_locked_dir, locked) = self::agent(Some("tok"));
    let (response, _) = ask(&locked, "GET", "/who", &[("authorization", &basic("ghost"))]).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_panic_in_a_handler_is_an_answer() {
    let (_dir, agent) = agent(None);
    let (response, body) = ask(&agent, "GET", "/boom", &[]).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body, "{\"code\":500,\"message\":\"internal error\"}\n");
    let (response, body) = ask(&agent, "POST", "/process.Process/List", &[("x-boom", "1")]).await;
    assert_eq!((response.status(), body.as_str()), (StatusCode::IM_A_TEAPOT, "Internal: internal error"));
}
