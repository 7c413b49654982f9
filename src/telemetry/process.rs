//! `process_*`, by the names that Prometheus' client libraries use, read from `/proc` when they
//! are asked for. Where there is no `/proc`, there are none.

use std::fmt::Write as _;
use std::fs;

/// Linux shows times to programs in hundredths of a second, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// In Prometheus' text format; a value that cannot be read is left out.
pub(super) fn render() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    let status = read("/proc/self/status");
    let started = start_ticks(&stat).zip(boot_time(&read("/proc/stat")));
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    };
    add("process_cpu_seconds_total", "counter", "CPU time used.", cpu_seconds(&stat));
    add(
        "process_resident_memory_bytes",
        "gauge",
        "Memory held in RAM.",
        kibibytes(&status, "VmRSS:"),
    );
    add("process_virtual_memory_bytes", "gauge", "Address space.", kibibytes(&status, "VmSize:"));
    add("process_threads", "gauge", "Threads.", field(&status, "Threads:"));
    add("process_open_fds", "gauge", "Open file descriptors.", open_fds());
    add(
        "process_max_fds",
        "gauge",
        "The most file descriptors that may be open.",
        field(&read("/proc/self/limits"), "Max open files"),
    );
    add(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
        started.map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND),
    );
    text
}

/// The most files that the process may have open, where that is known and limited.
pub fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    field(&limits, "Max open files").map(|max| max as u64)
}

/// The fields of `/proc/self/stat` after the program's name, which may hold anything; proc(5)
/// counts the first of them as the third.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_ticks(stat: &str) -> Option<f64> {
    stat_field(stat, 22)
}

fn boot_time(stat: &str) -> Option<f64> {
    field(stat, "btime")
}

/// The first number of the line that starts with `name`.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    Some(field(status, name)? * 1024.0)
}

fn open_fds() -> Option<f64> {
    // The one that lists them is among them.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as f64 - 1.0).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_after_a_name_that_looks_like_fields() {
        let stat = "42 (a) b (c d) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 9876 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_ticks(stat), Some(9876.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn fields_are_found_by_their_names() {
        let status = "VmPeak:\t   9 kB\nVmRSS:\t    2048 kB\nThreads:\t7\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(2_097_152.0));
        assert_eq!(field(status, "Threads:"), Some(7.0));
        let limits =
            "Limit   Soft Limit  Hard\nMax open files            1024       4096   files\n";
        assert_eq!(field(limits, "Max open files"), Some(1024.0));
        assert_eq!(field("Max open files unlimited", "Max open files"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_them_all() {
        let text = render();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_threads",
            "process_open_fds",
            "process_start_time_seconds",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{name}: {text}");
        }
    }
}
