//! Compiles `proto/*.proto` without `protoc`: protox parses, prost and tonic generate messages and service
//! traits, pbjson generates the protobuf JSON mapping.

use std::{env, error::Error, fs, path::PathBuf};

const PROTOS: [&str; 2] = ["proto/process.proto", "proto/filesystem.proto"];
const PACKAGES: [&str; 2] = [".process", ".filesystem"];

fn main() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo:rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let encoded = protox::prost::Message::encode_to_vec(&descriptors);

    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    config.compile_well_known_types();
    config.extern_path(".google.protobuf.Timestamp", "crate::proto::timestamp::Timestamp");
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .compile_fds_with_config(descriptors, config)?;

    let mut json = pbjson_build::Builder::new();
    json.register_descriptors(&encoded)?;
    json.ignore_unknown_fields();
    json.build(&PACKAGES)?;
    adapt_json()
}

/// Routes fields that pbjson does not read as we need it through modules of our own.
///
/// The protobuf JSON mapping asks parsers that ignore unknown fields to drop unknown enum names and to keep unknown
/// enum numbers. pbjson rejects both: the enums that clients send are read by `crate::proto::json_enum`. Input comes
/// in megabytes: it is decoded by `crate::proto::json_bytes`. (Output is never read.)
fn adapt_json() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(env::var("OUT_DIR")?).join("process.serde.rs");
    let mut generated = fs::read_to_string(&path)?;
    for (name, fields) in [("Signal", 1), ("SignalScope", 2)] {
        let strict = format!("map_.next_value::<{name}>()? as i32");
        let tolerant = format!("map_.next_value::<crate::proto::json_enum::Open<{name}>>()?.number()");
        if generated.matches(&strict).count() != fields {
            return Err("pbjson changed how it reads enum fields: adapt adapt_json".into());
        }
        generated = generated.replace(&strict, &tolerant);
    }
    for field in ["process_input::Input::Stdin", "process_input::Input::Pty"] {
        let slow = format!("::pbjson::private::BytesDeserialize<_>>>()?.map(|x| {field}(x.0))");
        let quick = format!("crate::proto::json_bytes::Base64>>()?.map(|x| {field}(x.0))");
        if generated.matches(&slow).count() != 1 {
            return Err("pbjson changed how it reads bytes fields: adapt adapt_json".into());
        }
        generated = generated.replace(&slow, &quick);
    }
    fs::write(&path, generated)?;
    Ok(())
}
