//! Samples, medians and the lines that are printed.

use std::time::Duration;

/// Durations of one thing and of its floor, measured in turn.
#[derive(Default)]
pub(crate) struct Pairs {
    ours: Vec<Duration>,
    floor: Vec<Duration>,
}

impl Pairs {
    /// Adds one round.
    pub(crate) fn push(&mut self, ours: Duration, floor: Duration) {
        self.ours.push(ours);
        self.floor.push(floor);
    }

    /// Adds many rounds.
    pub(crate) fn extend(&mut self, ours: Vec<Duration>, floor: Vec<Duration>) {
        self.ours.extend(ours);
        self.floor.extend(floor);
    }

    /// Prints both medians in microseconds and their ratio.
    pub(crate) fn print_times(&self, what: &str, floor: &str) {
        self.print_quantile(what, floor, median);
    }

    /// Prints both medians, then in a line of its own what 99 of 100 samples stay below.
    pub(crate) fn print_times_and_tail(&self, what: &str, floor: &str) {
        self.print_quantile(what, floor, median);
        self.print_quantile("    99 of 100 below", floor, |samples| quantile(samples, 99));
    }

    fn print_quantile(&self, what: &str, floor: &str, of: impl Fn(&[Duration]) -> f64) {
        let (ours, bare) = (of(&self.ours) * 1e6, of(&self.floor) * 1e6);
        println!("{what:46} {ours:7.0} µs    {floor}: {bare:.0} µs, ratio {:.2}", ours / bare);
    }

    /// Prints both median speeds and their ratio: 1 is as fast as the floor.
    pub(crate) fn print_speeds(&self, what: &str, floor: &str, bytes: u64) {
        let speed = |samples: &[Duration]| mebibytes(bytes) / median(samples);
        print_ratio(what, speed(&self.ours), "MiB/s", floor, speed(&self.floor));
    }

    /// Prints both median rates and their ratio: 1 is as many as the floor. `count` happened in each round.
    pub(crate) fn print_rates(&self, what: &str, floor: &str, count: u32) {
        let rate = |samples: &[Duration]| f64::from(count) / median(samples);
        print_ratio(what, rate(&self.ours), "/s   ", floor, rate(&self.floor));
    }
}

fn print_ratio(what: &str, ours: f64, unit: &str, floor: &str, bare: f64) {
    println!("{what:46} {ours:7.0} {unit} {floor}: {bare:.0} {}, ratio {:.2}", unit.trim_end(), ours / bare);
}

fn median(samples: &[Duration]) -> f64 {
    quantile(samples, 50)
}

/// What so many of 100 samples stay below, in seconds.
fn quantile(samples: &[Duration], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted.get(sorted.len() * percent / 100).unwrap().as_secs_f64()
}

/// Bytes as MiB.
#[allow(clippy::cast_precision_loss, reason = "byte counts of a bench are far below 2^52")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
