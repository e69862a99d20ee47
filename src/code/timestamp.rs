//! Dates of stream events: ISO 8601 with microseconds and a numeric offset, as in
//! `2026-11-20T20:02:55.100736+00:00`; the fraction is left out when it is zero.

use std::time::SystemTime;

use kernel_bridge::date::iso8601;

/// The kernel's own date in that form, or the present moment where it sent none that can be read.
pub(super) fn of(date: Option<&str>) -> String {
    let now = || normalise(&iso8601(SystemTime::now()));
    date.and_then(normalise).or_else(now).unwrap_or_default()
}

/// Reads `YYYY-MM-DDTHH:MM:SS`, an optional fraction and an optional offset; without one it is UTC.
fn normalise(date: &str) -> Option<String> {
    let date = date.trim();
    let (seconds, rest) = (date.get(..19)?, date.get(19..)?);
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = seconds.bytes().zip(shape).all(|(byte, wanted)| match wanted {
        b'd' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        other => byte == *other,
    });
    if !fits {
        return None;
    }
    let (fraction, offset) = match rest.strip_prefix('.').or_else(|| rest.strip_prefix(',')) {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            rest.split_at_checked(digits).filter(|(fraction, _)| !fraction.is_empty())?
        }
        None => ("", rest),
    };
    let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let fraction = if fraction == "000000" { String::new() } else { format!(".{fraction}") };
    let (day, time) = (seconds.get(..10)?, seconds.get(11..)?);
    Some(format!("{day}T{time}{fraction}{}", normalise_offset(offset)?))
}

fn normalise_offset(offset: &str) -> Option<String> {
    if matches!(offset, "" | "Z" | "z") {
        return Some("+00:00".to_owned());
    }
    let sign = offset.chars().next().filter(|sign| matches!(sign, '+' | '-'))?;
    let digits: String = offset.get(1..)?.chars().filter(|letter| *letter != ':').collect();
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.len() {
        2 if is_number => Some(format!("{sign}{digits}:00")),
        4 if is_number => Some(format!("{sign}{}:{}", digits.get(..2)?, digits.get(2..)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_dates_keep_their_moment_and_get_one_form() {
        for (sent, wanted) in [
            ("2026-11-20T20:02:55.100736Z", "2026-11-20T20:02:55.100736+00:00"),
            ("2026-11-20T20:02:55.100736+00:00", "2026-11-20T20:02:55.100736+00:00"),
            ("2026-11-20T20:02:55.1Z", "2026-11-20T20:02:55.100000+00:00"),
            ("2026-11-20T20:02:55.123456789-0530", "2026-11-20T20:02:55.123456-05:30"),
            ("2026-11-20T20:02:55.000000Z", "2026-11-20T20:02:55+00:00"),
            ("2026-11-20 20:02:55", "2026-11-20T20:02:55+00:00"),
        ] {
            assert_eq!(normalise(sent).as_deref(), Some(wanted), "{sent}");
        }
    }

    #[test]
    fn what_is_no_date_becomes_the_present() {
        for odd in
            ["", "yesterday", "2026-11-20", "2026-11-20T20:02:55.Z", "2026-11-20T20:02:55+1", "２０２６-11-20T20:02:55"]
        {
            assert_eq!(normalise(odd), None, "{odd}");
            assert_eq!(normalise(&of(Some(odd))).map(|text| text.ends_with("+00:00")), Some(true));
        }
        assert!(normalise(&of(None)).is_some());
    }
}
