//! Errors of handlers and of middleware.

use envd::connect::error_response;
use serde_json::json;
use tonic::Status;

use super::client::*;

#[tokio::test]
async fn every_code_has_its_name_and_status() {
    for (number, code, status) in [
        (1, "canceled", 499),
        (2, "unknown", 500),
        (3, "invalid_argument", 400),
        (4, "deadline_exceeded", 504),
        (5, "not_found", 404),
        (6, "already_exists", 409),
        (7, "permission_denied", 403),
        (8, "resource_exhausted", 429),
        (9, "failed_precondition", 400),
        (10, "aborted", 409),
        (11, "out_of_range", 400),
        (12, "unimplemented", 501),
        (13, "internal", 500),
        (14, "unavailable", 503),
        (15, "data_loss", 500),
        (16, "unauthenticated", 401),
    ] {
        let order = format!(r#"{{"fail":{number},"text":"why"}}"#);
        let reply = call("Unary", JSON, &[], order.clone()).await;
        assert_eq!((reply.status, reply.error()), (status, pair(code, "why")));
        let reply = call("Unary", PROTO, &[], [&[0x0a, 3][..], b"why", &[0x18, number]].concat()).await;
        assert_eq!((reply.status, reply.error()), (status, pair(code, "why")), "binary calls fail in JSON");
        let reply = call("Download", STREAM, &[], frames(&[&order])).await;
        assert_eq!(reply.stream_error(), pair(code, "why"));
    }
}

#[tokio::test]
async fn unary_errors_carry_details_and_metadata() {
    let reply = call("Unary", JSON, &[], r#"{"fail":9,"text":"<&>"}"#).await;
    let expected = json!({
        "code": "failed_precondition",
        "message": "<&>",
        "details": [{"type": "example.Order", "value": "CgM8Jj4YCQ"}],
    });
    assert_eq!(reply.json(), expected);
    assert!(!reply.body.ends_with(b"\n"));
    assert_eq!(reply.header("x-failure"), Some("meta"));
}

#[tokio::test]
async fn middleware_answers_in_the_shape_of_the_request() {
    let status = || Status::unauthenticated("invalid username: 'x'");
    let reply = collect(error_response(&request("Unary", JSON, &[], ""), status())).await;
    assert_eq!((reply.status, reply.error()), (401, pair("unauthenticated", "invalid username: 'x'")));
    assert_eq!(&reply.body[..], br#"{"code":"unauthenticated","message":"invalid username: 'x'"}"#);

    for content_type in [STREAM, "application/connect+json; charset=utf-8", STREAM_PROTO] {
        let (parts, _) = request("Download", content_type, &[], "").into_parts();
        let reply = collect(error_response(&parts, status())).await;
        assert_eq!(reply.stream_error(), pair("unauthenticated", "invalid username: 'x'"));
        assert_eq!(reply.header("content-type"), Some(content_type));
        assert_eq!(reply.frames()[0].0, 2);
    }
    let packed = request("Download", STREAM, &[("connect-accept-encoding", "gzip")], "");
    let reply = collect(error_response(packed.headers(), status())).await;
    assert_eq!((reply.frames()[0].0, reply.header("connect-content-encoding")), (3, Some("gzip")));

    let reply = collect(error_response(&request("Unary", "application/grpc-web+proto", &[], ""), status())).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("16")));
    assert_eq!(reply.header("content-type"), Some("application/grpc-web+proto"));
}
