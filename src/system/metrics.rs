//! The figures of the machine: processors, memory, disk.

use std::{
    fs, io,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

/// One sample; field order is the order on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Unix seconds by the machine's own clock.
    pub ts: u64,
    /// Logical processors.
    pub cpu_count: usize,
    /// Busy share of all processors together since the sample before, 0 to 100, two decimals.
    pub cpu_used_pct: f64,
    /// `mem_total` in whole MiB.
    pub mem_total_mib: u64,
    /// `mem_used` in whole MiB.
    pub mem_used_mib: u64,
    /// Bytes of memory.
    pub mem_total: u64,
    /// Bytes that programs could not get without swapping.
    pub mem_used: u64,
    /// Bytes that the kernel would give back: page cache and reclaimable slabs.
    pub mem_cache: u64,
    /// Bytes of `/` that an unprivileged program cannot get; blocks reserved for root count as used.
    pub disk_used: u64,
    /// Bytes of `/`.
    pub disk_total: u64,
}

/// Takes samples. The processor share is counted from the last sample that anybody took.
#[derive(Debug)]
pub struct Metrics {
    last: Mutex<Ticks>,
}

/// Clock ticks of all processors since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    total: u64,
}

impl Metrics {
    /// Starts counting now.
    pub fn new() -> Self {
        let ticks = fs::read_to_string("/proc/stat").map(|stat| parse_stat(&stat).0).unwrap_or_default();
        Self { last: Mutex::new(ticks) }
    }

    /// Takes a sample. It reads three small kernel files' worth, no disk.
    ///
    /// # Errors
    /// Where `/proc` is not mounted, or `/` tells no sizes.
    pub fn sample(&self) -> io::Result<Sample> {
        let (ticks, cpu_count) = parse_stat(&fs::read_to_string("/proc/stat")?);
        let memory = Memory::parse(&fs::read_to_string("/proc/meminfo")?);
        let disk = rustix::fs::statvfs("/")?;
        let last = std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), ticks);
        let disk_total = disk.f_blocks.saturating_mul(disk.f_frsize);
        Ok(Sample {
            ts: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            cpu_count,
            cpu_used_pct: busy_percent(last, ticks),
            mem_total_mib: memory.total >> 20,
            mem_used_mib: memory.used() >> 20,
            mem_total: memory.total,
            mem_used: memory.used(),
            mem_cache: memory.cache,
            disk_used: disk_total.saturating_sub(disk.f_bavail.saturating_mul(disk.f_frsize)),
            disk_total,
        })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Ticks and the number of processors from `/proc/stat` (proc_stat(5)).
fn parse_stat(stat: &str) -> (Ticks, usize) {
    let mut ticks = Ticks::default();
    let mut processors = 0;
    for line in stat.lines().take_while(|line| line.starts_with("cpu")) {
        let Some(fields) = line.strip_prefix("cpu ") else {
            processors += 1;
            continue;
        };
        // user nice system idle iowait irq softirq steal; guest time, which follows, is part of user and nice.
        for (at, field) in fields.split_ascii_whitespace().take(8).enumerate() {
            let count = field.parse::<u64>().unwrap_or(0);
            ticks.total = ticks.total.saturating_add(count);
            if at != 3 && at != 4 {
                ticks.busy = ticks.busy.saturating_add(count);
            }
        }
    }
    (ticks, processors)
}

#[allow(clippy::cast_precision_loss, reason = "a share with two decimals")]
fn busy_percent(last: Ticks, now: Ticks) -> f64 {
    let total = now.total.saturating_sub(last.total);
    let busy = now.busy.saturating_sub(last.busy);
    if total == 0 {
        return 0.0;
    }
    let percent = 100.0 * busy as f64 / total as f64;
    (percent * 100.0).round().clamp(0.0, 10_000.0) / 100.0
}

/// Bytes, from `/proc/meminfo` (proc_meminfo(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: u64,
    cache: u64,
}

impl Memory {
    fn parse(meminfo: &str) -> Self {
        let mut memory = Self::default();
        for line in meminfo.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let kib = value.split_ascii_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
            let bytes = kib.saturating_mul(1024);
            match name {
                "MemTotal" => memory.total = bytes,
                "MemAvailable" => memory.available = bytes,
                "Cached" | "SReclaimable" => memory.cache = memory.cache.saturating_add(bytes),
                _ => {}
            }
        }
        memory
    }

    fn used(self) -> u64 {
        self.total.saturating_sub(self.available)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    #[test]
    fn idle_iowait_and_guest_time_are_not_busy() {
        let stat = "cpu  10 20 30 400 50 6 7 8 900 1000\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5\ncpu9 not a processor\n";
        assert_eq!(parse_stat(stat), (Ticks { busy: 81, total: 531 }, 2));
    }

    #[test]
    fn the_share_is_rounded_and_never_out_of_range() {
        let at = |busy, total| Ticks { busy, total };
        assert_eq!(busy_percent(at(0, 0), at(1, 3)), 33.33);
        assert_eq!(busy_percent(at(5, 10), at(5, 10)), 0.0);
        assert_eq!(busy_percent(at(50, 100), at(10, 50)), 0.0);
        assert_eq!(busy_percent(at(0, 100), at(30, 110)), 100.0);
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        let memory = Memory::parse("MemTotal: 1000 kB\nMemAvailable:  400 kB\nCached: 5 kB\nSReclaimable: 2 kB\nX\n");
        assert_eq!(memory, Memory { total: 1_024_000, available: 409_600, cache: 7_168 });
        assert_eq!(memory.used(), 614_400);
    }

    #[test]
    fn a_sample_has_its_keys_in_order() {
        let sample = Metrics::new().sample().unwrap();
        assert!(sample.cpu_count > 0 && sample.mem_total > sample.mem_used && sample.disk_total > 0, "{sample:?}");
        let keys = [
            "ts",
            "cpu_count",
            "cpu_used_pct",
            "mem_total_mib",
            "mem_used_mib",
            "mem_total",
            "mem_used",
            "mem_cache",
            "disk_used",
            "disk_total",
        ];
        let json: serde_json::Value = serde_json::to_value(sample).unwrap();
        assert!(json.as_object().unwrap().keys().eq(keys));
    }
}
