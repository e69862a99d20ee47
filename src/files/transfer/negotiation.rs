//! `Accept-Encoding`: whether a download goes out as it is or gzipped.

use http::{HeaderMap, header};

/// How the bytes of a download are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// The client's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// What it likes best, if anything that we can do.
    pub(super) best: Option<Encoding>,
    /// Whether plain bytes are acceptable at all.
    pub(super) identity: bool,
}

/// Reads all `Accept-Encoding` lines; none means identity.
pub(super) fn accepted(headers: &HeaderMap) -> Accepted {
    let lines: Vec<&str> =
        headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok()).collect();
    negotiate(&lines.join(","))
}

fn negotiate(accept: &str) -> Accepted {
    let mut choices: Vec<(String, f64)> =
        accept.split(',').map(parse_choice).filter(|(name, _)| !name.is_empty()).collect();
    let refused = |name: &str| choices.iter().any(|(choice, weight)| choice == name && *weight <= 0.0);
    let wanted = |name: &str| choices.iter().any(|(choice, weight)| choice == name && *weight > 0.0);
    let identity = !refused("identity") && (!refused("*") || wanted("identity"));
    // A stable sort keeps the order of the header among equals.
    choices.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let best = choices.iter().filter(|(_, weight)| *weight > 0.0).find_map(|(name, _)| match name.as_str() {
        "identity" => Some(Encoding::Identity),
        "*" if identity => Some(Encoding::Identity),
        "*" | "gzip" => Some(Encoding::Gzip),
        _ => None,
    });
    Accepted { best: best.or_else(|| identity.then_some(Encoding::Identity)), identity }
}

fn parse_choice(element: &str) -> (String, f64) {
    let mut parts = element.split(';');
    let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let weight = parts
        .filter_map(|parameter| parameter.trim().split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
        .and_then(|(_, value)| value.trim().parse::<f64>().ok())
        .filter(|weight| !weight.is_nan())
        .unwrap_or(1.0);
    (name, weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_hold() {
        use Encoding::{Gzip, Identity};
        let vectors = [
            ("", Some(Identity)),
            ("gzip", Some(Gzip)),
            ("GZip", Some(Gzip)),
            ("deflate, gzip, br", Some(Gzip)),
            ("gzip, deflate", Some(Gzip)),
            ("zstd,gzip,br", Some(Gzip)),
            ("br;q=1, gzip;q=0.5", Some(Gzip)),
            ("gzip;q=0.5, identity;q=1", Some(Identity)),
            ("*", Some(Identity)),
            ("*, identity;q=0", Some(Gzip)),
            ("*;q=0", None),
            ("*;q=0, gzip", Some(Gzip)),
            ("*;q=0, identity", Some(Identity)),
            ("gzip;q=0, br", Some(Identity)),
            ("br, identity;q=0", None),
            ("identity, gzip", Some(Identity)),
            ("gzip;q=oops", Some(Gzip)),
            ("gzip;q=nan", Some(Gzip)),
            ("br", Some(Identity)),
            (",, ;q=1,", Some(Identity)),
        ];
        for (header, expected) in vectors {
            assert_eq!(negotiate(header).best, expected, "{header}");
        }
    }

    #[test]
    fn identity_is_acceptable_unless_excluded() {
        for (header, expected) in [
            ("gzip", true),
            ("gzip, identity;q=0", false),
            ("*;q=0, gzip", false),
            ("*;q=0, identity;q=0.1, gzip", true),
        ] {
            assert_eq!(negotiate(header).identity, expected, "{header}");
        }
    }
}
