//! The code cell port of an image without kernels.

use serde_json::{Value, json};

use crate::agent::Agent;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_methods() {
    let agent = Agent::start().await;
    for (method, path, allow) in [
        ("HEAD", "/health", "GET"),
        ("POST", "/health", "GET"),
        ("GET", "/execute", "POST"),
        ("PUT", "/contexts", "GET, POST"),
        ("DELETE", "/contexts", "GET, POST"),
        ("GET", "/contexts/x", "DELETE"),
        ("GET", "/contexts/x/restart", "POST"),
        ("OPTIONS", "/execute", "POST"),
        ("TRACE", "/execute", "POST"),
    ] {
        let reply = agent.send_code(method, path, &[], "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)), "{method} {path}");
        if method != "HEAD" {
            assert_eq!(reply.json(), json!({ "detail": "Method Not Allowed" }));
        }
    }
    for path in
        ["/", "/nope", "/Health", "/contexts/x/y", "/contexts/x/restart/y", "//contexts", "/files", "/init", "/envs"]
    {
        for method in ["GET", "POST", "DELETE"] {
            let reply = agent.send_code(method, path, &[], "").await;
            assert_eq!((reply.status, reply.json()), (404, json!({ "detail": "Not Found" })), "{method} {path}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
    }
    for (path, target) in
        [("/contexts/", "/contexts"), ("/health/?a=b", "/health?a=b"), ("/contexts/x/", "/contexts/x")]
    {
        let reply = agent.send_code("GET", path, &[], "").await;
        assert_eq!((reply.status, reply.header("location")), (307, Some(target)), "{path}");
    }
    // A query means nothing.
    assert_eq!(agent.send_code("GET", "/contexts?source=x", &[], "").await.assert_ok(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_kernels_is_healthy_and_says_what_it_lacks() {
    let agent = Agent::start().await;
    let health = async || agent.send_code("GET", "/health", &[], "").await;
    let started = std::time::Instant::now();
    while health().await.status == 503 {
        assert!(started.elapsed() < crate::agent::PATIENCE, "never healthy");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let reply = health().await;
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.header("content-type")),
        (200, "\"OK\"", Some("application/json"))
    );
    assert_eq!(agent.send_code("GET", "/contexts", &[], "").await.assert_ok(), json!([]));
    for (method, path, body, status, text) in [
        ("POST", "/contexts", json!({ "language": "cobol" }), 500, lacks("cobol")),
        ("POST", "/contexts", json!({ "language": " COBOL ", "cwd": null }), 500, lacks("cobol")),
        ("POST", "/execute", json!({ "code": "1", "language": "cobol" }), 500, lacks("cobol")),
        ("POST", "/execute", json!({ "code": "1", "context_id": "x" }), 404, "Context x not found".into()),
        (
            "POST",
            "/execute",
            json!({ "code": "1", "context_id": "x", "language": "python" }),
            400,
            "Only one of context_id or language can be provided".into(),
        ),
        ("POST", "/contexts/x/restart", json!(null), 404, "Context x not found".into()),
        ("DELETE", "/contexts/x%20y", json!(null), 404, "Context x y not found".into()),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = agent.send_code(method, path, &[JSON], &body).await;
        assert_eq!((reply.status, reply.text()), (status, text), "{method} {path} {body}");
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    for body in [json!({ "code": "1" }), json!({ "code": "1", "context_id": "", "language": "", "env_vars": null })] {
        let reply = agent.send_code("POST", "/execute", &[JSON], body.to_string()).await;
        assert_eq!(reply.status, 500, "{}", reply.text());
        assert!(reply.text().starts_with("Failed to create context: "), "{}", reply.text());
    }
}

fn lacks(name: &str) -> String {
    format!(
        "Failed to create context: {{\"message\": \"The '{name}' kernel is not available. Please pick another suitable \
         kernel instead, or install that kernel.\", \"short_message\": \"{name} not found\"}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_bodies_are_422_with_their_place() {
    let agent = Agent::start().await;
    let text = [("content-type", "text/plain")];
    let json_type = [JSON];
    let rows: [(&str, &[(&str, &str)], &str, &str, Value); 14] = [
        ("/execute", &json_type, "{}", "missing", json!(["body", "code"])),
        ("/execute", &json_type, r#"{"code":1}"#, "string_type", json!(["body", "code"])),
        ("/execute", &json_type, r#"{"code":null}"#, "string_type", json!(["body", "code"])),
        ("/execute", &json_type, r#"{"code":"1","env_vars":{"A":1}}"#, "string_type", json!(["body", "env_vars", "A"])),
        (
            "/execute",
            &json_type,
            r#"{"code":"1","env_vars":{"A":null}}"#,
            "string_type",
            json!(["body", "env_vars", "A"]),
        ),
        ("/execute", &json_type, r#"{"code":"1","env_vars":[]}"#, "dict_type", json!(["body", "env_vars"])),
        ("/execute", &json_type, r#"{"code":"1","context_id":1}"#, "string_type", json!(["body", "context_id"])),
        ("/execute", &json_type, r#"{"code":"1","language":[]}"#, "string_type", json!(["body", "language"])),
        ("/execute", &json_type, "[]", "model_attributes_type", json!(["body"])),
        ("/execute", &text, r#"{"code":"1"}"#, "model_attributes_type", json!(["body"])),
        ("/execute", &[], "", "missing", json!(["body"])),
        ("/contexts", &json_type, "", "missing", json!(["body"])),
        ("/contexts", &json_type, r#"{"cwd":1}"#, "string_type", json!(["body", "cwd"])),
        ("/contexts", &json_type, "\"x\"", "model_attributes_type", json!(["body"])),
    ];
    for (path, headers, body, kind, place) in rows {
        let reply = agent.send_code("POST", path, headers, body).await;
        assert_eq!(reply.status, 422, "{path} {body}");
        let detail = reply.json()["detail"][0].take();
        assert_eq!((&detail["type"], &detail["loc"]), (&json!(kind), &place), "{path} {body}");
        assert!(detail["msg"].is_string() && detail.get("input").is_some(), "{detail}");
    }
    for body in ["{", "not json", "{}{}", r#"{"code":"#] {
        let reply = agent.send_code("POST", "/execute", &[], body).await;
        assert_eq!((reply.status, &reply.json()["detail"][0]["type"]), (422, &json!("json_invalid")), "{body}");
        assert_eq!(reply.json()["detail"][0]["loc"][0], "body");
    }
    assert_eq!(agent.send_code("POST", "/execute", &[JSON], b"\xff\xfe").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_asks_for_no_token_and_reads_no_user() {
    let agent = Agent::start().await;
    assert_eq!(agent.send("POST", "/init", &[], r#"{"accessToken":"tok"}"#).await.status, 204);
    for headers in [&[][..], &[("x-access-token", "wrong")], &[("authorization", "Basic bm9ib2R5Og==")]] {
        assert_eq!(agent.send_code("GET", "/contexts", headers, "").await.status, 200);
        assert_eq!(agent.send_code("DELETE", "/contexts/x", headers, "").await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_every_origin_may_call() {
    let agent = Agent::start().await;
    let origin = ("origin", "https://page");
    let reply = agent.send_code("GET", "/contexts", &[origin], "").await;
    assert_eq!((reply.header("access-control-allow-origin"), reply.header("vary")), (Some("*"), None));
    let reply = agent.send_code("GET", "/nope", &[origin, ("cookie", "a=b")], "").await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://page"));
    assert_eq!(reply.header("vary"), Some("Origin"));
    assert_eq!(agent.send_code("GET", "/contexts", &[], "").await.header("access-control-allow-origin"), None);
    let ask =
        [origin, ("access-control-request-method", "POST"), ("access-control-request-headers", "content-type, x-y")];
    for path in ["/execute", "/contexts", "/nope"] {
        let reply = agent.send_code("OPTIONS", path, &ask, "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "OK"));
        assert!(reply.header("content-type").unwrap().starts_with("text/plain"));
        assert_eq!(reply.header("access-control-allow-methods"), Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
        assert_eq!(reply.header("access-control-allow-headers"), Some("content-type, x-y"));
        assert_eq!(reply.header("access-control-max-age"), Some("600"));
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    }
    assert_eq!(agent.send_code("OPTIONS", "/execute", &[origin], "").await.status, 405);
}
