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

    /// Prints both medians in microseconds and their ratio.
    pub(crate) fn print_times(&self, what: &str, floor: &str) {
        let (ours, bare) = (median(&self.ours) * 1e6, median(&self.floor) * 1e6);
        println!("{what:34} {ours:7.0} µs    {floor}: {bare:.0} µs, ratio {:.2}", ours / bare);
    }

    /// Prints both median speeds and the ratio of the times.
    pub(crate) fn print_speeds(&self, what: &str, floor: &str, bytes: u64) {
        let speed = |samples: &[Duration]| mebibytes(bytes) / median(samples);
        let (ours, bare) = (speed(&self.ours), speed(&self.floor));
        println!("{what:34} {ours:7.0} MiB/s {floor}: {bare:.0} MiB/s, ratio {:.2}", bare / ours);
    }
}

fn median(samples: &[Duration]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).unwrap().as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "byte counts of a bench are far below 2^52")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
