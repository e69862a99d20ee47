//! Dates of stream events: ISO 8601 with microseconds and a numeric offset, as in
//! `2026-11-20T20:02:55.100736+00:00`; the fraction is left out when it is zero.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The kernel's own date in that form, or the present moment where it sent none that can be read.
pub(super) fn of(date: Option<&str>) -> String {
    date.and_then(normalise).unwrap_or_else(|| format(SystemTime::now()))
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

fn format(moment: SystemTime) -> String {
    // A clock before 1970 is a clock that was never set.
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = match since_epoch.subsec_micros() {
        0 => String::new(),
        micros => format!(".{micros:06}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years are counted from March
/// inside eras of 400 years, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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

    #[test]
    fn moments_are_written_in_the_gregorian_calendar() {
        for (seconds, micros, wanted) in [
            (0, 0, "1970-01-01T00:00:00+00:00"),
            (951_782_400, 0, "2000-02-29T00:00:00+00:00"),
            (1_709_251_199, 1, "2024-02-29T23:59:59.000001+00:00"),
            (4_107_542_400, 0, "2100-03-01T00:00:00+00:00"),
        ] {
            let moment = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(format(moment), wanted);
        }
    }
}
