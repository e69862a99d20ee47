//! Signed file URLs.

use base64_simd::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};

use crate::agent::Agent;

const TOKEN: &str = "tok";

fn sign(text: &str) -> String {
    format!("v1_{}", STANDARD_NO_PAD.encode_to_string(Sha256::digest(text)))
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

async fn secured(token: &str) -> Agent {
    let agent = Agent::start().await;
    let body = format!(r#"{{"accessToken":"{token}"}}"#);
    assert_eq!(agent.send("POST", "/init", &[], body).await.status, 204);
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn known_signatures_pass_and_all_else_is_refused_in_order() {
    let agent = secured(TOKEN).await;
    // Signatures that others have computed: the user is looked up after the signature.
    let missing = "path=%2Fhome%2Fuser%2Fa.txt&signature=v1_Zkbb3914oLJLvMBzCAHQhm2ydBLxbSx2eQUR%2FkLdvIY";
    agent.get(&format!("/files?{missing}")).await.assert_http_error(404, "path '/home/user/a.txt' does not exist");
    let upload = "path=&signature=v1_XfYYOx0ojDc6kqfLnaJuiYLWXCK2SaWCthv8%2Bgv5kbo";
    let raw = [("content-type", "application/octet-stream")];
    let reply = agent.send("POST", &format!("/files?{upload}"), &raw, "x").await;
    reply.assert_http_error(400, &format!("path is a directory: {}", agent.work().display()));
    let user = "path=%2Fhome%2Fuser%2Fa.txt&username=user&signature=v1_p0WqJQYCLtO6YX%2Be4h7VbpybRsdJbMbIw7clYpulIJk";
    let reply = agent.get(&format!("/files?{user}")).await;
    assert_ne!(reply.json()["message"], "invalid signature");
    let expired = "path=%2Fhome%2Fuser%2Fa.txt&username=user&signature_expiration=1700000000\
                   &signature=v1_x09R0%2BVxB2mRzkxWcRyFCpiJmFv0okUrtgQ6q12G0jM";
    let reply = agent.send("POST", &format!("/files?{expired}"), &raw, "x").await;
    reply.assert_http_error(401, "signature is already expired");
    // A signature for writing does not read, nor the other way round.
    agent.get(&format!("/files?{expired}")).await.assert_http_error(401, "invalid signature");
    agent.send("POST", &format!("/files?{missing}"), &raw, "x").await.assert_http_error(401, "invalid signature");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_has_its_own_signatures() {
    let agent = secured("0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0").await;
    let query = "path=hello.txt&username=user&signature=v1_gUtH%2Fs9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E";
    let reply = agent.get(&format!("/files?{query}")).await;
    assert_ne!(reply.json()["message"], "invalid signature");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_url_serves_until_its_time_is_over() {
    let agent = secured(TOKEN).await;
    let path = agent.file("a b.txt", "content");
    let url =
        |signature: &str, more: &str| format!("/files?path={}&signature={}{more}", encoded(&path), encoded(signature));
    let genuine = sign(&format!("{path}:read::{TOKEN}"));
    assert_eq!(agent.get(&url(&genuine, "")).await.text(), "content");
    let future = sign(&format!("{path}:read::{TOKEN}:9999999999"));
    assert_eq!(agent.get(&url(&future, "&signature_expiration=9999999999")).await.text(), "content");
    for (signature, more, told) in [
        (&*genuine, "&signature_expiration=9999999999", "invalid signature"),
        (&*future, "", "invalid signature"),
        (&*format!("{genuine}="), "", "invalid signature"),
        (&*genuine.replace("v1_", ""), "", "invalid signature"),
        ("", "", "invalid signature"),
        ("v1_", "", "invalid signature"),
        (&*genuine, "&username=root", "invalid signature"),
        ("nonsense", "&signature_expiration=1", "invalid signature"),
        (&*sign(&format!("{path}:read::{TOKEN}:1")), "&signature_expiration=1", "signature is already expired"),
        (&*sign(&format!("{path}:read::{TOKEN}:-5")), "&signature_expiration=-5", "signature is already expired"),
    ] {
        agent.get(&url(signature, more)).await.assert_http_error(401, told);
    }
    agent
        .get(&format!("/files?path={}", encoded(&path)))
        .await
        .assert_http_error(401, "missing signature query parameter");
    // An empty name is signed like none, and then nobody has it.
    agent
        .get(&url(&genuine, "&username="))
        .await
        .assert_http_error(401, "error looking up user '': user: unknown user ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_header_decides_alone() {
    let agent = secured(TOKEN).await;
    let path = agent.file("a.txt", "content");
    let genuine = sign(&format!("{path}:read::{TOKEN}"));
    let signed = format!("/files?path={}&signature={}", encoded(&path), encoded(&genuine));
    let bogus = format!("/files?path={}&signature=bogus&signature_expiration=1", encoded(&path));
    assert_eq!(agent.send("GET", &bogus, &[("x-access-token", TOKEN)], "").await.text(), "content");
    let reply = agent.send("GET", &signed, &[("x-access-token", "wrong")], "").await;
    reply.assert_http_error(401, "access token present in header but does not match");
    assert_eq!(agent.send("GET", &signed, &[("x-access-token", "")], "").await.text(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_mean_nothing_without_a_token() {
    let agent = Agent::start().await;
    let path = agent.file("a.txt", "content");
    let reply = agent.get(&format!("/files?path={path}&signature=bogus&signature_expiration=1")).await;
    assert_eq!(reply.text(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_parameters_are_named_before_any_check() {
    let agent = secured(TOKEN).await;
    for (query, name) in [
        ("signature_expiration=x", "signature_expiration"),
        ("signature_expiration=", "signature_expiration"),
        ("signature_expiration=1.5", "signature_expiration"),
        ("signature_expiration=99999999999999999999", "signature_expiration"),
        ("path=a&path=b", "path"),
        ("username=a&username=a", "username"),
        ("signature=a&signature=b", "signature"),
    ] {
        for method in ["GET", "POST"] {
            let reply = agent.send(method, &format!("/files?{query}"), &[], "").await;
            assert_eq!(reply.status, 400, "{query}");
            assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
            let text = reply.text();
            assert!(text.starts_with(&format!("Invalid format for parameter {name}: ")), "{text}");
        }
    }
}
