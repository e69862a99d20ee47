//! Random and mutated requests: every answer is well-formed, nothing panics.

use proptest::{
    collection::vec,
    prelude::{Strategy, any, prop_oneof, proptest},
    sample::select,
};

use super::{client::*, service::router};

fn header() -> impl Strategy<Value = (&'static str, String)> {
    let name = select(vec![
        "connect-timeout-ms",
        "connect-protocol-version",
        "connect-content-encoding",
        "connect-accept-encoding",
        "content-encoding",
        "accept-encoding",
        "x-echo",
    ]);
    (name, prop_oneof!["gzip", "identity", "1", "-?[0-9]{5,11}", "[ -~]{0,12}"])
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..64),
        "\\{\"(text|count|fail)\":(null|-?[0-9]{1,12}|\"[a-z]{0,5}\"|\\[\\])\\}".prop_map(String::into_bytes),
        "\\{\"text\":\"[a-z]{0,9}\"\\}".prop_map(gzip),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let framed = (any::<u8>(), payload(), any::<bool>())
        .prop_map(|(flags, payload, plain)| frame(if plain { flags & 1 } else { flags }, payload).to_vec());
    let damage = (vec(framed, 0..4), any::<u16>(), any::<u8>()).prop_map(|(frames, at, value)| {
        let mut body = frames.concat();
        if let Some(byte) = body.get_mut(usize::from(at)) {
            *byte = value;
        }
        body
    });
    prop_oneof![payload(), damage]
}

proptest! {
    #[test]
    fn any_request_gets_a_well_formed_answer(
        method in select(vec!["Unary", "Written", "Download", "WrittenDownload", "Upload", "Chat"]),
        proto in any::<bool>(),
        headers in vec(header(), 0..3),
        body in body(),
        cut in 1_usize..40,
    ) {
        let unary = matches!(method, "Unary" | "Written");
        let content_type = match (unary, proto) {
            (true, false) => JSON,
            (true, true) => PROTO,
            (false, false) => STREAM,
            (false, true) => STREAM_PROTO,
        };
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = pieces(body.chunks(cut).map(bytes::Bytes::copy_from_slice).collect());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let reply = runtime.block_on(async {
            // A request may ask for 2³² responses or for silence: one that outlives the limit is fine.
            let answer = send_some(request_with(method, content_type, &headers, body));
            tokio::time::timeout(std::time::Duration::from_secs(20), answer).await
        });
        let Ok(reply) = reply else { panic!("no answer") };
        if unary {
            if reply.status != 200 {
                assert!(reply.json()["code"].is_string());
            }
        } else {
            assert_eq!(reply.status, 200);
            let frames = reply.frames();
            assert!(!frames.is_empty());
        }
    }
}

/// The answer, or the beginning of a long one.
async fn send_some(request: http::Request<envd::Body>) -> Reply {
    use http_body_util::BodyExt as _;
    let (parts, mut body) = router().0.call(request).await.into_parts();
    let mut chunks = Vec::new();
    while chunks.len() < 100
        && let Ok(Some(frame)) = tokio::time::timeout(std::time::Duration::from_millis(200), body.frame()).await
    {
        chunks.push(frame.unwrap().into_data().unwrap());
    }
    Reply { status: parts.status.as_u16(), headers: parts.headers, body: chunks.concat().into(), chunks }
}
